"""Optuna's contract tests for storages, on both kinds of database, with and without the cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase

from tlopt.storage import studies


def opened(url: str) -> Iterator[BaseStorage]:
    """The storage as commands and workers use it, closed afterwards."""
    storage = studies.open_storage(url)
    yield storage
    studies.engine_of(storage).dispose()


class TestOnSqlite(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[BaseStorage]:
        yield from opened(f"sqlite:///{tmp_path}/tlopt.db")


@pytest.mark.slow
@pytest.mark.postgres
class TestOnPostgres(StorageTestCase):
    @pytest.fixture
    def storage(self, postgres_url: str) -> Iterator[BaseStorage]:
        yield from opened(postgres_url)


@pytest.mark.slow
class TestBelowTheCache(StorageTestCase):
    """The storage itself, as a heartbeat uses it."""

    @pytest.fixture
    def storage(self, storage_url: str) -> Iterator[BaseStorage]:
        for cached in opened(storage_url):
            yield studies.service_of(cached)
