"""One module a guarantee; joined in suites that an engine's tests subclass."""

from everthread.testing.guarantees.as_memory import AsMemory
from everthread.testing.guarantees.atomic import Atomic
from everthread.testing.guarantees.bounded import Bounded
from everthread.testing.guarantees.cancelling import Cancelling
from everthread.testing.guarantees.conflict_aware import ConflictAware, ConflictAwareDropping
from everthread.testing.guarantees.corruption import AfterCorruption
from everthread.testing.guarantees.discreet import Discreet, DiscreetAboutSecrets
from everthread.testing.guarantees.documents import Documents, DocumentsProperties
from everthread.testing.guarantees.expiry import Expiry
from everthread.testing.guarantees.importing import Imports
from everthread.testing.guarantees.isolated import Isolated, IsolatedProperties
from everthread.testing.guarantees.lossless import Lossless, LosslessProperties
from everthread.testing.guarantees.ordered import Ordered
from everthread.testing.guarantees.own_retention import OwnExpiry, OwnRetention
from everthread.testing.guarantees.ownership import HonestOwnership
from everthread.testing.guarantees.processes import AcrossProcesses
from everthread.testing.guarantees.retry_safe import RetrySafe
from everthread.testing.guarantees.rewriting import Rewrites
from everthread.testing.guarantees.searching import Searching, SearchingByIndex
from everthread.testing.guarantees.servers import AcrossRestarts
from everthread.testing.guarantees.threads import Listing, Threads
from everthread.testing.guarantees.truncating import Truncating
from everthread.testing.guarantees.typed_errors import TypedErrors
from everthread.testing.guarantees.valid_for_a_model import ValidForAModel, ValidForAModelProperties


class StoreContractSuite(
    Atomic,
    Ordered,
    RetrySafe,
    ConflictAware,
    ConflictAwareDropping,
    Lossless,
    LosslessProperties,
    Bounded,
    ValidForAModel,
    ValidForAModelProperties,
    Isolated,
    IsolatedProperties,
    Discreet,
    TypedErrors,
    HonestOwnership,
    Cancelling,
    Truncating,
    Listing,
    Threads,
    Documents,
    DocumentsProperties,
    Expiry,
    OwnRetention,
    OwnExpiry,
    AsMemory,
):
    """Everything that can be asked of any store. A subclass gives the fixture ``harness``."""


class ProcessSuite(AcrossProcesses):
    """What is asked of a store that outlives its process. ``harness`` gives a `ProcessHarness`."""


class ServerSuite(AcrossRestarts):
    """What is asked of a store on a server. ``harness`` gives a `ServerHarness`, on a server of the test's own."""


class CorruptionSuite(AfterCorruption):
    """What is asked when records were spoilt. ``harness`` gives a `CorruptibleHarness`."""


class ImportSuite(Imports):
    """What is asked of a store that takes threads in with their times. ``harness`` gives any `Harness`."""


class RewriteSuite(Rewrites):
    """What is asked of a store that can rewrite payloads. ``harness`` gives any `Harness`."""


class SearchSuite(Searching, SearchingByIndex):
    """What is asked of a store that can search. ``harness`` gives any `Harness`."""


class ScanSuite(Searching):
    """What is asked of a search (`everthread.searching`) in a store that cannot. ``harness`` gives any `Harness`."""


class SecretSuite(DiscreetAboutSecrets):
    """What is asked of a store that is given a secret. ``harness`` gives a `SecretHarness`."""


__all__ = [
    "CorruptionSuite",
    "ImportSuite",
    "ProcessSuite",
    "RewriteSuite",
    "SecretSuite",
    "ServerSuite",
    "StoreContractSuite",
]
