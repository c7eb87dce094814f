//! Control groups, by hostile children: each limit holds, hits only its own worker, and leaves nothing behind. On whatever
//! version this machine has; `make test-cgroup2` runs the same in a machine that has version 2.
//!
//! With `TENANTRY_REQUIRE_CGROUP` in the environment it is a failure to have none.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test program")]

use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Resource, Signal};
use rustix::time::{ClockId, clock_gettime};
use tenantry_jail::{
    Exit, ExitKind, Exits, GroupLimits, Layer, Layers, Spawner, SuspendBy, WorkerProcess, WorkerSpec, lock_down,
};

/// Nobody asks a worker for that.
const EXIT_USAGE: u8 = 64;
const MIB: u64 = 1 << 20;
/// How long anything is waited for that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after the server's death a worker may still be there.
const AFTER_THE_SERVER: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("spawner") => return tenantry_jail::spawner_main(),
        // work --runtime WHAT --layers BITS
        Some("work") => return work(&arguments[3], Layers::from_bits(arguments[5].parse().unwrap())),
        Some("server") => return server(),
        Some("--list") => {
            println!("control_groups: test");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let ground = Ground::new();
    let barriers = ground.spawner.barriers();
    if !barriers.in_force.has(Layer::Cgroup) {
        let why = barriers.not_in_force.iter().find(|(layer, _)| *layer == Layer::Cgroup).map(|(_, why)| why.as_str());
        println!("test control_groups ... skipped: {}", why.unwrap_or("unknown"));
        return if std::env::var_os("TENANTRY_REQUIRE_CGROUP").is_some() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    let tests: &[(&str, Test)] = &[
        ("a_worker_sees_its_own_group_as_the_root", own_root),
        ("whoever_stays_within_the_limits_notices_nothing", within),
        ("who_takes_too_much_memory_is_ended_and_nobody_else", memory),
        ("who_makes_too_many_processes_is_refused", processes),
        ("a_ceiling_bounds_processor_time", ceiling),
        ("weights_divide_processor_time_whatever_the_number_of_threads", weights),
        ("a_frozen_worker_stands_still_and_goes_on", freezing),
        ("a_frozen_worker_can_be_killed", killed_frozen),
        ("a_worker_that_cannot_be_executed_leaves_no_group", not_executed),
        ("a_killed_server_leaves_neither_worker_nor_group", server_killed),
        ("the_groups_of_a_killed_spawner_are_removed_by_the_next", spawner_killed),
    ];
    let wanted = arguments.iter().skip(1).find(|argument| !argument.starts_with('-'));
    for (name, test) in tests.iter().filter(|(name, _)| wanted.is_none_or(|word| name.contains(word.as_str()))) {
        test(&ground);
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// A test's body.
type Test = fn(&Ground);

/// The body of a hostile worker.
fn work(what: &str, layers: Layers) -> ExitCode {
    lock_down(layers).unwrap();
    let (what, amount) = what.split_once(' ').unwrap_or((what, "0"));
    let amount: u64 = amount.parse().unwrap();
    match what {
        "memory" => {
            let mut taken = vec![0_u8; usize::try_from(amount).unwrap()];
            taken.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            std::hint::black_box(&taken);
        }
        "processes" => return processes_made(),
        "compute" => {
            let limit = Duration::from_millis(amount);
            while amount == 0 || cpu_time() < limit {
                std::hint::black_box(0);
            }
        }
        "threads" => {
            for _ in 1..amount {
                std::thread::spawn(|| {
                    loop {
                        std::hint::black_box(0);
                    }
                });
            }
            loop {
                std::hint::black_box(0);
            }
        }
        "root" => {
            let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
            let bounding = |line: &&str| ["memory", "pids", ":cpu", "0::"].iter().any(|name| line.contains(name));
            let below = groups.lines().filter(bounding).filter(|line| !line.ends_with(":/")).count();
            return ExitCode::from(u8::try_from(below).unwrap());
        }
        _ => return ExitCode::from(EXIT_USAGE),
    }
    ExitCode::SUCCESS
}

/// Forks until it is refused; how many it made.
fn processes_made() -> ExitCode {
    for made in 0..u8::MAX {
        // SAFETY: the child only sleeps; there is one thread.
        match unsafe { libc::fork() } {
            0 => loop {
                std::thread::park();
            },
            pid if pid < 0 => {
                assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN));
                return ExitCode::from(made);
            }
            _ => {}
        }
    }
    ExitCode::from(u8::MAX)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

struct Ground {
    spawner: Spawner,
    exits: Exits,
}

/// A worker, and the other end of its socket, which it never reads.
struct Victim {
    process: WorkerProcess,
    started: Instant,
    _channel: std::os::fd::OwnedFd,
}

impl Ground {
    fn new() -> Self {
        let (spawner, exits) = Spawner::start(&std::env::current_exe().unwrap()).unwrap();
        Self { spawner, exits }
    }

    fn start(&self, what: &str, group: GroupLimits) -> Victim {
        self.start_on(what, group, &[])
    }

    fn start_on(&self, what: &str, group: GroupLimits, cpus: &[usize]) -> Victim {
        let layers = [Layer::Namespaces, Layer::Cgroup].into_iter().collect::<Layers>();
        let layers = layers.and(self.spawner.barriers().in_force);
        let spec =
            WorkerSpec { runtime_library: what.into(), layers, group, cpus: cpus.to_vec(), ..WorkerSpec::default() };
        let (theirs, ours) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let stderr = rustix::io::dup(std::io::stderr()).unwrap();
        let started = Instant::now();
        let process = self.spawner.spawn(&spec, theirs, stderr).unwrap();
        assert!(process.is_in_group());
        Victim { process, started, _channel: ours }
    }

    fn next_exit(&self) -> Exit {
        loop {
            if let Some(exit) = self.exits.next().unwrap() {
                return exit;
            }
            let limit = rustix::time::Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
            let polled = rustix::event::poll(&mut [PollFd::new(&self.exits, PollFlags::IN)], Some(&limit));
            assert_eq!(polled.unwrap(), 1, "nobody ends");
        }
    }

    fn end(&self, victim: &Victim) -> Exit {
        victim.process.kill().unwrap();
        let exit = self.next_exit();
        assert_eq!(exit.serial, victim.process.serial);
        exit
    }
}

/// The processor time a process has used, by the kernel's books.
fn used(pid: i32) -> Duration {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let book = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        sum += book.split(' ').next().unwrap().parse::<u64>().unwrap();
    }
    Duration::from_nanos(sum)
}

/// Waits until something is so.
fn until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::yield_now();
    }
}

/// The directories of a process's groups.
fn directories(pid: i32) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controller, path) = (parts.next()?, parts.next()?);
        let kind = if controller.is_empty() { " - cgroup2 " } else { " - cgroup " };
        let mount = mounts.lines().find(|line| {
            line.contains(kind) && (controller.is_empty() || line.split(&[',', ' ']).any(|word| word == controller))
        })?;
        let at = mount.split(' ').nth(4)?;
        path.contains("/worker-").then(|| PathBuf::from(format!("{at}{path}")))
    };
    groups.lines().filter_map(of).collect()
}

fn own_root(ground: &Ground) {
    if !ground.spawner.barriers().in_force.has(Layer::Namespaces) {
        println!("(skipped: no namespaces here)");
        return;
    }
    let _victim = ground.start("root", GroupLimits::default());
    assert_eq!(ground.next_exit().status, ExitKind::Code(0));
}

fn within(ground: &Ground) {
    let limits = GroupLimits {
        memory_bytes: Some(256 * MIB),
        max_processes: Some(8),
        cpu_weight: Some(100),
        max_cpu_milli: Some(1_000),
    };
    let _victim = ground.start(&format!("memory {}", 32 * MIB), limits);
    let exit = ground.next_exit();
    assert_eq!((exit.status, exit.oom_kills), (ExitKind::Code(0), 0));
    // Older kernels of version 2 do not count it.
    if let Some(peak) = exit.memory_peak_bytes {
        assert!((32 * MIB..256 * MIB).contains(&peak), "{peak}");
    }
}

fn memory(ground: &Ground) {
    let limits = GroupLimits { memory_bytes: Some(32 * MIB), ..GroupLimits::default() };
    let other = ground.start("compute 0", limits);
    let victim = ground.start(&format!("memory {}", 96 * MIB), limits);
    let exit = ground.next_exit();
    assert_eq!((exit.serial, exit.status), (victim.process.serial, ExitKind::Signal(9)));
    assert!(exit.oom_kills > 0, "{exit:?}");
    if let Some(peak) = exit.memory_peak_bytes {
        assert!((16 * MIB..=32 * MIB).contains(&peak), "{peak}");
    }
    let exit = ground.end(&other);
    assert_eq!((exit.status, exit.oom_kills), (ExitKind::Signal(9), 0), "killed by us, and not for its memory");
}

fn processes(ground: &Ground) {
    let _victim = ground.start("processes", GroupLimits { max_processes: Some(16), ..GroupLimits::default() });
    assert_eq!(ground.next_exit().status, ExitKind::Code(15), "itself is the sixteenth");
}

fn ceiling(ground: &Ground) {
    let limits = GroupLimits { max_cpu_milli: Some(200), ..GroupLimits::default() };
    let victim = ground.start("compute 300", limits);
    assert_eq!(ground.next_exit().status, ExitKind::Code(0));
    // 20 ms of every 100: 300 ms take fifteen periods, of which the first and the last may be short.
    let took = victim.started.elapsed();
    assert!(took > Duration::from_millis(1_200), "{took:?}");
}

fn weights(ground: &Ground) {
    let weight = |weight| GroupLimits { cpu_weight: Some(weight), ..GroupLimits::default() };
    let heavy = ground.start_on("threads 1", weight(400), &[0]);
    let light = ground.start_on("threads 4", weight(100), &[0]);
    let ratio = || {
        let start = (used(heavy.process.pid), used(light.process.pid));
        loop {
            let gained = (used(heavy.process.pid) - start.0, used(light.process.pid) - start.1);
            if gained.0 + gained.1 > Duration::from_millis(1500) {
                return gained.0.as_secs_f64() / gained.1.as_secs_f64();
            }
            std::thread::yield_now();
        }
    };
    until("both compute", PATIENCE, || used(light.process.pid) > Duration::from_millis(50));
    let four = ratio();
    assert!((2.5..6.0).contains(&four), "4 is the ratio of the weights, and {four} of the times");
    light.process.set_cpu_weight(1_600).unwrap();
    let quarter = ratio();
    assert!((0.15..0.4).contains(&quarter), "1/4 is the ratio of the weights, and {quarter} of the times");
    ground.end(&heavy);
    ground.end(&light);
}

/// Computes for a while, by the clock of this thread, which stands while it does not run.
fn compute_for(time: Duration) {
    let until = cpu_time() + time;
    while cpu_time() < until {
        std::hint::black_box(0);
    }
}

fn freezing(ground: &Ground) {
    if !ground.spawner.has_freezer() {
        println!("(skipped: no freezer here)");
        return;
    }
    let victim = ground.start("threads 3", GroupLimits::default());
    let pid = victim.process.pid;
    for by in [SuspendBy::Auto, SuspendBy::Freezer] {
        until("it computes", PATIENCE, || used(pid) > Duration::from_millis(20));
        victim.process.suspend(by).unwrap();
        until("it stands", PATIENCE, || victim.process.stands().unwrap());
        let before = used(pid);
        compute_for(Duration::from_millis(100));
        assert_eq!(used(pid), before, "it stands in every thread");
        victim.process.resume(by).unwrap();
        until("it goes on", PATIENCE, || used(pid) > before);
    }
    // The other way of standing still.
    victim.process.suspend(SuspendBy::Stop).unwrap();
    assert!(!victim.process.stands().unwrap());
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    until("it is stopped", PATIENCE, || stat().contains(") T "));
    victim.process.resume(SuspendBy::Stop).unwrap();
    until("it goes on", PATIENCE, || stat().contains(") R "));
    ground.end(&victim);
}

fn killed_frozen(ground: &Ground) {
    let victim = ground.start("threads 2", GroupLimits::default());
    let groups = directories(victim.process.pid);
    assert!(!groups.is_empty() && groups.iter().all(|group| group.exists()), "{groups:?}");
    until("it computes", PATIENCE, || used(victim.process.pid) > Duration::from_millis(20));
    victim.process.suspend(SuspendBy::Auto).unwrap();
    let exit = ground.end(&victim);
    assert_eq!((exit.status, exit.oom_kills), (ExitKind::Signal(9), 0));
    until("its groups are gone", AFTER_THE_SERVER, || groups.iter().all(|group| !group.exists()));
    // Whoever is gone can be told anything.
    victim.process.set_cpu_weight(5).unwrap();
    victim.process.suspend(SuspendBy::Auto).unwrap();
    victim.process.resume(SuspendBy::Auto).unwrap();
    victim.process.kill().unwrap();
}

fn not_executed(ground: &Ground) {
    let living = ground.start("compute 0", GroupLimits::default());
    let parents: Vec<PathBuf> =
        directories(living.process.pid).iter().map(|group| group.parent().unwrap().to_owned()).collect();
    let count = || {
        let below = |group: &PathBuf| {
            let entries = std::fs::read_dir(group).unwrap().map(Result::unwrap);
            entries.filter(|entry| entry.file_type().unwrap().is_dir()).count()
        };
        parents.iter().map(below).collect::<Vec<_>>()
    };
    let before = count();
    // No processor of that number.
    let spec = WorkerSpec {
        cpus: vec![1_000],
        layers: Layers::NONE.with(Layer::Cgroup),
        runtime_library: "compute 0".into(),
        ..WorkerSpec::default()
    };
    let (channel, _) = rustix::pipe::pipe().unwrap();
    let stderr = rustix::io::dup(std::io::stderr()).unwrap();
    assert!(ground.spawner.spawn(&spec, channel, stderr).is_err());
    assert_eq!(count(), before);
    ground.end(&living);
}

/// Another server: starts two workers, freezes one, says who they are and waits to be killed.
fn server() -> ExitCode {
    // Whoever started it may be killed as well.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let ground = Ground::new();
    let workers =
        [ground.start("compute 0", GroupLimits::default()), ground.start("compute 0", GroupLimits::default())];
    workers[0].process.suspend(SuspendBy::Auto).unwrap();
    println!("{} {} {}", ground.spawner.pid(), workers[0].process.pid, workers[1].process.pid);
    // A bound on what computes without end, should everything else fail.
    rustix::process::setrlimit(Resource::Cpu, rustix::process::Rlimit { current: Some(60), maximum: Some(60) })
        .unwrap();
    loop {
        std::thread::park();
    }
}

struct OtherServer {
    server: std::process::Child,
    spawner: i32,
    workers: Vec<std::os::fd::OwnedFd>,
    groups: Vec<PathBuf>,
}

impl OtherServer {
    fn start() -> Self {
        let this = std::env::current_exe().unwrap();
        let mut server = Command::new(this).arg("server").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pids: Vec<i32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        let handle =
            |pid: &i32| rustix::process::pidfd_open(Pid::from_raw(*pid).unwrap(), PidfdFlags::empty()).unwrap();
        let groups: Vec<PathBuf> = pids[1..].iter().flat_map(|pid| directories(*pid)).collect();
        assert!(groups.len() >= 2, "{groups:?}");
        Self { server, spawner: pids[0], workers: pids[1..].iter().map(handle).collect(), groups }
    }

    /// Waits for the end of a worker.
    fn is_gone(worker: &std::os::fd::OwnedFd, limit: Duration) -> bool {
        let limit =
            rustix::time::Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        let polled = rustix::event::poll(&mut [PollFd::from_borrowed_fd(worker.as_fd(), PollFlags::IN)], Some(&limit));
        polled.unwrap() == 1
    }

    /// The groups of the workers, and that of their spawner.
    fn are_groups_gone(&self) -> bool {
        self.groups.iter().all(|group| !group.exists() && !group.parent().unwrap().exists())
    }
}

fn server_killed(_ground: &Ground) {
    let mut other = OtherServer::start();
    other.server.kill().unwrap();
    other.server.wait().unwrap();
    let killed = Instant::now();
    for worker in &other.workers {
        assert!(OtherServer::is_gone(worker, AFTER_THE_SERVER.saturating_sub(killed.elapsed())), "a worker lives on");
    }
    until("the groups are gone", AFTER_THE_SERVER, || other.are_groups_gone());
}

fn spawner_killed(_ground: &Ground) {
    let mut other = OtherServer::start();
    rustix::process::kill_process(Pid::from_raw(other.spawner).unwrap(), Signal::KILL).unwrap();
    // The one that is not frozen dies at once. Where the freezer is of version 1 the other one cannot.
    assert!(OtherServer::is_gone(&other.workers[1], AFTER_THE_SERVER), "a worker lives on");
    let before = other.groups.iter().filter(|group| group.exists()).count();
    assert!(before > 0, "nobody is there to remove them");
    let next = Ground::new();
    assert!(OtherServer::is_gone(&other.workers[0], AFTER_THE_SERVER), "a frozen worker lives on");
    drop(next);
    // What still had a process in it the first time goes the second time.
    drop(Ground::new());
    assert!(other.are_groups_gone(), "{:?}", other.groups);
    other.server.kill().unwrap();
    other.server.wait().unwrap();
}
