"""The errors that callers distinguish; any other is a programming error and keeps its traceback.

TloptError
├── SpecError        the study file is wrong: the user edits it
├── DataError        the images cannot be used as they are: the user repairs the folder
│   └── CacheUnwritable  the cache folder cannot be written: all but downloads go on without it
├── WeightsError     pretrained weights cannot be had: the user gives a file or another name
├── StorageError     the study's database cannot be opened or is of another kind
├── StudyChanged     the file no longer matches the stored study of that name
├── NotReady         an earlier step has not been done: the message names its command
├── MissingExtra     an optional package is needed: the message names the extra
├── Unwritable       a result cannot be written: the user frees disk space or names another folder
├── CheckpointUnreadable  a checkpoint is damaged or another run's: the one before it is tried
└── TrialError       a trial ended without a value; the worker goes on
    ├── Diverged     a loss stopped being finite
    ├── OutOfMemory  the point does not fit the device
    ├── TimedOut     it ran for longer than the study allows
    ├── OutOfReach   a network cannot become as small as wanted
    └── Refused      its enqueued parameters do not belong to this search
"""


class TloptError(Exception):
    """Base of all errors that tlopt raises on purpose; its message is written for the user."""


class SpecError(TloptError):
    """The study file is wrong: file, key, what is wrong, what is allowed."""


class DataError(TloptError):
    """The images cannot be used as they are; the message names the file or folder."""


class CacheUnwritable(DataError):
    """The cache folder cannot be written; the message names it and says what to do."""


class WeightsError(TloptError):
    """Pretrained weights could not be fetched, read or fitted to the network."""


class StorageError(TloptError):
    """The study's database cannot be opened; the message never holds a password."""


class StudyChanged(TloptError):
    """The study file no longer matches the stored study of that name."""


class NotReady(TloptError):
    """An earlier step has not been done; the message names its command."""


class MissingExtra(TloptError):
    """An optional dependency is not installed; the message names the extra to install."""


class Unwritable(TloptError):
    """A result cannot be written to disk; the message names the file and says what to do."""


class CheckpointUnreadable(TloptError):
    """A checkpoint is damaged, of another version or of another run; the message says which."""


class TrialError(TloptError):
    """A trial ended without a value; the cause is recorded and the worker goes on."""


class Diverged(TrialError):
    """A loss stopped being finite."""


class OutOfMemory(TrialError):
    """The point does not fit the device's memory."""


class TimedOut(TrialError):
    """The trial ran for longer than the study allows."""


class OutOfReach(TrialError):
    """A network cannot be pruned, or not as far as wanted; says how far."""


class Refused(TrialError):
    """The enqueued parameters do not belong to this search; names them and the allowed values."""
