//! What goes wrong in a simulated mesh: one thing at a time, and it is put right again.

use std::time::Duration;

use tokio::time::sleep;
use trial::{link::Direction, random::Random};

use super::mesh::Mesh;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A process dies, and is started again after a while.
    Kill(char),
    /// A process is told to stop, and is started again.
    Stop(char),
    /// A process is stopped for a while and goes on, or is cut off from all others.
    Freeze(char),
    /// One way between two processes is silent for a while, in one direction or both.
    Silence(char, char),
    /// The connections between two processes end in the middle of a frame.
    Cut(char, char),
    /// All connections of a process end at once, save those to the store.
    CutOff(char),
}

impl Fault {
    const ALL: [Self; 15] = [
        Self::Kill('w'),
        Self::Kill('r'),
        Self::Kill('g'),
        Self::Kill('s'),
        Self::Stop('w'),
        Self::Stop('r'),
        Self::Freeze('w'),
        Self::Freeze('r'),
        Self::Freeze('s'),
        Self::Silence('r', 'w'),
        Self::Silence('g', 'r'),
        Self::Cut('r', 'w'),
        Self::Cut('g', 'r'),
        Self::CutOff('w'),
        Self::CutOff('r'),
    ];

    pub(crate) fn draw(random: &mut Random) -> Self {
        Self::ALL[random.index(Self::ALL.len())]
    }

    /// Does it, and puts it right. Says what was done.
    pub(crate) async fn strike(self, mesh: &mut Mesh, random: &mut Random) -> String {
        match self {
            Self::Kill(kind) => {
                let (host, away) = (mesh.one(kind, random), random.below(2000));
                mesh.kill(&host);
                sleep(Duration::from_millis(away)).await;
                mesh.start_host(&host);
                format!("{host} is killed, and back after {away} ms")
            }
            Self::Stop(kind) => {
                let host = mesh.one(kind, random);
                mesh.stop(&host).await;
                mesh.start_host(&host);
                format!("{host} is stopped, and started again")
            }
            Self::Freeze(kind) => {
                let (host, time) = (mesh.one(kind, random), random.below(4000));
                mesh.silence(&host, true);
                sleep(Duration::from_millis(time)).await;
                mesh.silence(&host, false);
                format!("{host} is frozen for {time} ms")
            }
            Self::Silence(from, to) => {
                let (from, to) = (mesh.one(from, random), mesh.one(to, random));
                let (link, time) = (mesh.network.link(&from, &to), random.below(4000));
                let (up, down) = [(true, true), (true, false), (false, true)][random.index(3)];
                link.change(|weather| (weather.silent_up, weather.silent_down) = (up, down));
                sleep(Duration::from_millis(time)).await;
                link.silence(false);
                format!("{from} to {to} is silent for {time} ms (up {up}, down {down})")
            }
            Self::Cut(from, to) => {
                let (from, to, bytes) = (mesh.one(from, random), mesh.one(to, random), random.below(2000));
                mesh.network.link(&from, &to).cut_after(Direction::Down, bytes);
                format!("{from} to {to} is cut after {bytes} bytes")
            }
            Self::CutOff(kind) => {
                let host = mesh.one(kind, random);
                let links = mesh.network.links_between(&host, &["g", "r", "w"]);
                for link in &links {
                    link.reset();
                }
                format!("all connections of {host} are cut")
            }
        }
    }
}
