"""What lies at a path is named for what it is."""

from pathlib import Path

from tlopt.system.files import file_in_place_of_folder


def test_the_first_file_on_the_way_is_found(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")

    assert file_in_place_of_folder(tmp_path / "runs" / "photos" / "weights") == tmp_path / "runs"
    assert file_in_place_of_folder(tmp_path / "absent" / "photos") is None
    assert file_in_place_of_folder(tmp_path / "runs") == tmp_path / "runs"
    assert file_in_place_of_folder(tmp_path) is None


def test_a_link_that_leads_nowhere_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(tmp_path / "absent")

    assert file_in_place_of_folder(tmp_path / "runs" / "photos") == tmp_path / "runs"
