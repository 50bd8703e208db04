//! A real PostgreSQL of the tests' own: a fresh cluster that listens on a Unix socket only, under a user that is not root.
//!
//! A small shell process holds it. When its standard input closes, which happens however the tests end, it stops the server and
//! removes the cluster; and should the shell be killed, the kernel stops the server (`PDEATHSIG`).

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, User, chown},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// What holds the server: `$1` is the cluster's folder, the rest starts the server.
const HOLDER: &str = r#"
dir=$1; shift
"$@" &
server=$!
read -r word
kill -QUIT $server 2>/dev/null
wait $server
[ "$word" = keep ] || rm -rf "$dir"
"#;

/// How long a server may take to start or stop.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server. Dropping it stops it and removes its cluster.
pub(crate) struct Server {
    dir: PathBuf,
    holder: Child,
    input: Option<ChildStdin>,
}

/// The server that all contract tests share, each with a database of its own.
pub(crate) async fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(Server::make);
    server.ready().await;
    server
}

impl Server {
    /// Makes a cluster and starts a server for it.
    pub(crate) fn make() -> Self {
        let dir = tempfile::Builder::new().prefix("unbroken-postgres-").tempdir().unwrap().keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        if let Some(user) = other_user() {
            chown(&dir, Some(user.uid), Some(user.gid)).unwrap();
        }
        make_cluster(&dir);
        let (holder, input) = hold(&dir);
        Self {
            dir,
            holder,
            input: Some(input),
        }
    }

    /// Waits until it takes connections.
    pub(crate) async fn ready(&self) {
        let connected = async {
            while PgConnection::connect(&self.url("postgres")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let log = || fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        tokio::time::timeout(PATIENCE, connected)
            .await
            .unwrap_or_else(|_| panic!("PostgreSQL does not start: {}", log()));
    }

    /// A new, empty database's address.
    pub(crate) async fn database(&self) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .unwrap();
        self.url(&name)
    }

    /// The address of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.dir.to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{socket}/{database}")
    }

    /// Sends all of its processes a signal.
    pub(crate) fn signal_all(&self, signal: Signal) {
        let first = self.pid();
        for pid in children(first).into_iter().chain([first]) {
            // One that has gone meanwhile needs no signal.
            let _ = kill(pid, signal);
        }
    }

    /// Kills all of it at once, as if the machine had lost it.
    pub(crate) fn kill(&mut self) {
        // The first one is stopped before the others are counted: a child that it made meanwhile would outlive all, and keep the shared
        // memory. Then all are, so that none has time to see another one die.
        let _ = kill(self.pid(), Signal::SIGSTOP);
        self.signal_all(Signal::SIGSTOP);
        let first = self.pid();
        let all: Vec<Pid> = children(first).into_iter().chain([first]).collect();
        self.signal_all(Signal::SIGKILL);
        // On a busy machine one may take its time to die, and hold the shared memory until then.
        let began = std::time::Instant::now();
        while all.iter().any(|pid| holds_memory(*pid)) {
            assert!(began.elapsed() < PATIENCE, "a process of PostgreSQL outlives SIGKILL");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.let_go("keep\n");
    }

    /// Starts the killed server again, on what it left.
    pub(crate) fn start_again(&mut self) {
        let (holder, input) = hold(&self.dir);
        self.holder = holder;
        self.input = Some(input);
    }

    fn pid(&self) -> Pid {
        let file = fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap();
        Pid::from_raw(file.lines().next().unwrap().parse().unwrap())
    }

    fn let_go(&mut self, word: &str) {
        if let Some(mut input) = self.input.take() {
            let _ = input.write_all(word.as_bytes());
        }
        let _ = self.holder.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.let_go("");
    }
}

/// Makes the cluster `data` in `dir`. The first one is kept as a pattern for the next test process, which copies it: that is much
/// cheaper, where each test is a process of its own.
fn make_cluster(dir: &Path) {
    let version = Command::new(tool("postgres")).arg("--version").output().unwrap().stdout;
    let version: String = version.into_iter().filter(u8::is_ascii_alphanumeric).map(char::from).collect();
    let pattern = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{version}-{}", Uid::effective()));
    let data = dir.join("data");
    if pattern.is_dir() {
        copy(&pattern, &data);
        return;
    }
    let made = as_other(&tool("initdb"))
        .args([
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "--wal-segsize=1",
            "-D",
        ])
        .arg(&data)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
    let mine = pattern.with_extension(std::process::id().to_string());
    copy(&data, &mine);
    if fs::rename(&mine, &pattern).is_err() {
        // Another process was faster.
        fs::remove_dir_all(&mine).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn hold(dir: &Path) -> (Child, ChildStdin) {
    let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let server = as_other(&tool("postgres"));
    let mut holder = Command::new("sh")
        .args(["-c", HOLDER, "sh"])
        .arg(dir)
        .arg(server.get_program())
        .args(server.get_args())
        .arg("-D")
        .arg(dir.join("data"))
        .arg("-k")
        .arg(dir)
        .args([
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "max_connections=300",
            "-c",
            "shared_buffers=32MB",
        ])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let input = holder.stdin.take().unwrap();
    (holder, input)
}

/// A command that dies with its parent and, as PostgreSQL demands, does not run as root.
fn as_other(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if let Some(user) = other_user() {
        command.args(["--clear-groups", &format!("--reuid={}", user.uid), &format!("--regid={}", user.gid)]);
    }
    command.arg("--").arg(program);
    command
}

/// Who runs it when we are root.
fn other_user() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    let user = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).unwrap());
    Some(user.expect("PostgreSQL does not run as root, and there is neither a user `postgres` nor a user `nobody`"))
}

/// A program of PostgreSQL: in the PATH, or where Debian keeps it.
fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    folders.sort();
    std::env::split_paths(&path)
        .chain(folders.into_iter().rev())
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("these tests need a real PostgreSQL, and `{name}` is neither in PATH nor in /usr/lib/postgresql/*/bin; on Debian: apt-get install -y postgresql"))
}

/// Whether a process is there, and more than a line in its parent's books.
fn holds_memory(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map_or("", |(_, rest)| rest.trim_start());
    !(state.is_empty() || state.starts_with('Z') || state.starts_with('X'))
}

fn children(parent: Pid) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}
