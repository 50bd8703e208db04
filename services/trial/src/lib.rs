//! What `make bench`, `make chaos` and the tests of the whole mesh share: its processes, started and stopped; the client side; the
//! judgement; the figures.
//!
//! - [`process`]: one process. [`fleet`]: a mesh of them. [`disk`]: a disk that can be full. [`nginx`]: what the mesh is measured beside, with its [`upstream`].
//! - [`link`]: what may go wrong on the way between two processes; [`proxy`] is such a way between real ones.
//! - [`client`]: reads one answer, whatever it takes. [`history`]: what it saw, and whether that was promised. [`aftermath`]: what must
//!   be true of the mesh afterwards.
//! - [`load`]: bare HTTP clients. [`usage`]: CPU time and memory of a process. [`relaying`]: what the journal
//!   costs. [`report`]: the table. [`random`]: draws from a seed.

pub mod aftermath;
pub mod client;
pub mod disk;
pub mod fleet;
pub mod history;
pub mod link;
pub mod load;
pub mod nginx;
pub mod process;
pub mod proxy;
pub mod random;
pub mod relaying;
pub mod report;
pub mod upstream;
pub mod usage;
