"""Optuna's own contract of a storage, held by ours on both kinds of database, with and without the cache."""

from collections.abc import Iterator

import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase

from tlopt.storage import studies


def emptied(storage: BaseStorage) -> Iterator[BaseStorage]:
    yield storage
    studies.engine_of(storage).dispose()


class TestCached(StorageTestCase):
    """What `open_storage` returns, as commands and workers use it."""

    @pytest.fixture
    def storage(self, storage_url: str) -> Iterator[BaseStorage]:
        yield from emptied(studies.open_storage(storage_url))


@pytest.mark.slow
class TestBelowTheCache(StorageTestCase):
    """The storage itself, as a heartbeat uses it."""

    @pytest.fixture
    def storage(self, storage_url: str) -> Iterator[BaseStorage]:
        yield from emptied(studies.service_of(studies.open_storage(storage_url)))
