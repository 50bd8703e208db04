//! What `make bench` and `make chaos` share: the processes of a mesh, started and stopped; the client side; the figures.
//!
//! - [`process`]: one process. [`fleet`]: a mesh of them. [`nginx`]: what the mesh is measured beside, with its [`upstream`].
//! - [`load`]: bare HTTP clients. [`usage`]: CPU time and memory of a process. [`report`]: the table.

pub mod fleet;
pub mod load;
pub mod nginx;
pub mod process;
pub mod report;
pub mod upstream;
pub mod usage;
