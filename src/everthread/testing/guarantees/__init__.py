"""One module a guarantee; joined in suites that an engine's tests subclass."""

from everthread.testing.guarantees.atomic import Atomic
from everthread.testing.guarantees.bounded import Bounded
from everthread.testing.guarantees.cancelling import Cancelling
from everthread.testing.guarantees.conflict_aware import ConflictAware, ConflictAwareDropping
from everthread.testing.guarantees.corruption import AfterCorruption, DamageReports
from everthread.testing.guarantees.costs import Costs
from everthread.testing.guarantees.discreet import Discreet, DiscreetAboutSecrets
from everthread.testing.guarantees.documents import Documents, DocumentsProperties
from everthread.testing.guarantees.event_loops import EveryLoop
from everthread.testing.guarantees.expiry import Expiry
from everthread.testing.guarantees.importing import Imports
from everthread.testing.guarantees.isolated import Isolated, IsolatedProperties
from everthread.testing.guarantees.lossless import Lossless, LosslessProperties
from everthread.testing.guarantees.matches_reference import MatchesReference
from everthread.testing.guarantees.ordered import Ordered
from everthread.testing.guarantees.own_retention import OwnExpiry, OwnRetention
from everthread.testing.guarantees.ownership import HonestOwnership
from everthread.testing.guarantees.processes import AcrossProcesses
from everthread.testing.guarantees.read_only import ReadOnly
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
    EveryLoop,
    Cancelling,
    Truncating,
    Listing,
    Threads,
    Documents,
    DocumentsProperties,
    Expiry,
    OwnRetention,
    OwnExpiry,
    ReadOnly,
    MatchesReference,
):
    """The tests of every store. A subclass defines the fixture ``harness``."""


class ProcessSuite(AcrossProcesses):
    """Tests of a store that outlives its process. ``harness`` returns a `ProcessHarness`."""


class ServerSuite(AcrossRestarts):
    """Tests of a store on a server. ``harness`` returns a `ServerHarness`, on a server for this test only."""


class CorruptionSuite(AfterCorruption, DamageReports):
    """Tests with damaged records. ``harness`` returns a `CorruptibleHarness`."""


class CostSuite(Costs):
    """Tests of costs. ``harness`` returns a `MeteredHarness`."""


class ImportSuite(Imports):
    """Tests of a store that imports threads with their times. ``harness`` returns any `Harness`."""


class RewriteSuite(Rewrites):
    """Tests of a store that can rewrite payloads. ``harness`` returns any `Harness`."""


class SearchSuite(Searching, SearchingByIndex):
    """Tests of a store that can search. ``harness`` returns any `Harness`."""


class ScanSuite(Searching):
    """Tests of a search by reading (`everthread.operations.search`). ``harness`` returns any `Harness`."""


class SecretSuite(DiscreetAboutSecrets):
    """Tests of a store with a secret. ``harness`` returns a `SecretHarness`."""


__all__ = [
    "CorruptionSuite",
    "CostSuite",
    "ImportSuite",
    "ProcessSuite",
    "RewriteSuite",
    "SecretSuite",
    "ServerSuite",
    "StoreContractSuite",
]
