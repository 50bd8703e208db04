//! What is done to the mesh: each kind with its crowd, its targets and its names. How it is done is in [`crate::strike`].

use trial::fleet::Fleet;

/// One way to lose a process, or the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    KillWorker,
    KillWorkers,
    FreezeWorker,
    PartitionWorker,
    CutWorker,
    StopWorker,
    KillRouter,
    PartitionRouter,
    CutRouter,
    StopRouter,
    KillGateway,
    StopGateway,
    KillStore,
    RestartStore,
    FillDisk,
    KillRedis,
    Rolling,
}

impl Fault {
    pub(crate) const ALL: [Self; 18] = [
        Self::None,
        Self::KillWorker,
        Self::FreezeWorker,
        Self::PartitionWorker,
        Self::CutWorker,
        Self::StopWorker,
        Self::KillRouter,
        Self::PartitionRouter,
        Self::CutRouter,
        Self::StopRouter,
        Self::KillGateway,
        Self::StopGateway,
        Self::KillStore,
        Self::RestartStore,
        Self::FillDisk,
        Self::KillRedis,
        Self::Rolling,
        Self::KillWorkers,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no fault",
            Self::KillWorker => "kill -9 a worker",
            Self::KillWorkers => "kill -9 one worker after another",
            Self::FreezeWorker => "SIGSTOP a worker for 3 s",
            Self::PartitionWorker => "partition a worker for 3 s",
            Self::CutWorker => "cut a worker's connections in a frame",
            Self::StopWorker => "SIGTERM a worker",
            Self::KillRouter => "kill -9 a router",
            Self::PartitionRouter => "partition a router for 12 s",
            Self::CutRouter => "cut a router's connections, all at once",
            Self::StopRouter => "SIGTERM a router",
            Self::KillGateway => "kill -9 a gateway",
            Self::StopGateway => "SIGTERM a gateway",
            Self::KillStore => "kill -9 the store, again and again",
            Self::RestartStore => "restart the store",
            Self::FillDisk => "fill the store's disk for 2 s",
            Self::KillRedis => "kill -9 the Redis, again and again",
            Self::Rolling => "rolling restart of everything",
        }
    }

    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::None => "n",
            Self::KillWorker => "kw",
            Self::KillWorkers => "kk",
            Self::FreezeWorker => "fw",
            Self::PartitionWorker => "pw",
            Self::CutWorker => "cw",
            Self::StopWorker => "sw",
            Self::KillRouter => "kr",
            Self::PartitionRouter => "pr",
            Self::CutRouter => "cr",
            Self::StopRouter => "sr",
            Self::KillGateway => "kg",
            Self::StopGateway => "sg",
            Self::KillStore => "ks",
            Self::RestartStore => "rs",
            Self::FillDisk => "fd",
            Self::KillRedis => "kr2",
            Self::Rolling => "rr",
        }
    }

    /// Whether this mesh can have it.
    pub(crate) fn is_possible(self, fleet: &Fleet) -> bool {
        match self {
            Self::FillDisk => fleet.disk.is_some(),
            Self::KillRedis => fleet.redis.is_some(),
            _ => true,
        }
    }

    /// The p99 of the stall that is aimed at, in milliseconds. None where more streams at once than the targets speak of.
    pub(crate) fn stall_target_ms(self) -> Option<f64> {
        Some(match self {
            Self::None | Self::KillStore | Self::RestartStore | Self::FillDisk | Self::KillRedis | Self::StopWorker | Self::StopRouter => {
                100.0
            }
            Self::KillWorker | Self::CutWorker | Self::KillRouter | Self::CutRouter => 250.0,
            // The client's own retry is in it.
            Self::KillGateway | Self::StopGateway | Self::Rolling => 550.0,
            Self::FreezeWorker | Self::PartitionWorker => 2000.0,
            // A silent router is noticed by the keepalive of the gateways' connections.
            Self::PartitionRouter => 9000.0,
            Self::KillWorkers => return None,
        })
    }

    /// How long the process that is told to stop may take, in seconds.
    pub(crate) fn exit_target_s(self) -> Option<f64> {
        (self == Self::StopWorker).then_some(2.0)
    }

    /// The time within which its moment lies, in milliseconds: well before the crowd's answers end, and earlier where more follows.
    pub(crate) fn moments_ms(self) -> u64 {
        if matches!(self, Self::KillWorkers | Self::KillStore | Self::KillRedis) {
            900
        } else {
            1700
        }
    }

    /// How many rounds of it, where others have so many: those that take long have one.
    pub(crate) fn rounds(self, rounds: u32) -> u32 {
        match self {
            Self::PartitionRouter | Self::Rolling => rounds.min(1),
            _ => rounds,
        }
    }

    /// How many answers stream while it happens, where so many are wanted: three times as many where so many are to be at the worker that is
    /// struck, of which there are three.
    pub(crate) fn answers(self, wanted: usize) -> usize {
        if matches!(self, Self::StopWorker | Self::KillWorkers) {
            3 * wanted
        } else {
            wanted
        }
    }
}
