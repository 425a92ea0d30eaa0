"""Studies beside a search that belong to it: its confirmation and its prunings.

Each names its search in `SEARCH`, because a study's name becomes free when the study is deleted or renamed.
"""

from collections.abc import Mapping

import optuna
from optuna.storages import BaseStorage

from tlopt.spec import Study
from tlopt.storage import attributes, studies
from tlopt.storage.attributes import SEARCH


def open_companion(
    store: BaseStorage,
    study: Study,
    *,
    name: str,
    list_of: str,
    search: optuna.Study,
    file_text: str,
    fingerprints: Mapping[str, str | int],
) -> optuna.Study:
    """Create or open the study `name`, which belongs to `search`.

    Args:
        list_of: the attribute that lists what the study is about, `CANDIDATES` or `PRUNINGS`.
    """
    # runs and prunings are compared by the metric; what their networks cost is in their records
    named = study.model_copy(update={"name": name, "objectives": ()})
    began = search.user_attrs.get(attributes.BEGAN)
    owner = {} if began is None else {SEARCH: began}
    opened = studies.create_or_open(
        store,
        named,
        file_text=file_text,
        fingerprints=dict(fingerprints),
        further={list_of: [], **owner},
    )
    if owner and SEARCH not in opened.user_attrs:  # by an earlier version
        opened.set_user_attr(SEARCH, began)
    return opened


def has_start_of(opened: optuna.Study, search: optuna.Study) -> bool:
    """Whether `opened` stores the start time of `search`, or none, as in earlier versions."""
    return opened.user_attrs.get(SEARCH) in (None, search.user_attrs.get(attributes.BEGAN))
