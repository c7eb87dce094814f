//! What this machine lets us put up around a process: found by putting it up, not by asking for versions.

use std::io::{self, Read, Write};

use rustix::pipe::PipeFlags;
use rustix::process::{Signal, WaitIdOptions};

use crate::cgroup::{GroupLimits, Groups};
use crate::clone;
use crate::layers::{Barriers, Layer, Layers};
use crate::{lockdown, seccomp};

/// Tries every barrier in a child made for the purpose. The caller must be the only thread of its process.
pub(crate) fn probe(groups: &mut Result<Groups, String>) -> Barriers {
    let mut barriers = Barriers::default();
    let mut refused = |layer, error: &io::Error| barriers.not_in_force.push((layer, words(layer, error)));
    let namespaces = try_in_child(true, Layers::NONE.with(Layer::Namespaces), &[Layer::Root]);
    let (has_namespaces, has_root) = match &namespaces {
        Ok(results) => {
            let root = results.first().copied().unwrap_or(libc::EIO);
            if root != 0 {
                refused(Layer::Root, &io::Error::from_raw_os_error(root));
            }
            (true, root == 0)
        }
        Err(error) => {
            refused(Layer::Namespaces, error);
            refused(Layer::Root, &io::Error::other("needs namespaces"));
            (false, false)
        }
    };
    let mut in_force = Layers::NONE;
    if has_namespaces {
        in_force = in_force.with(Layer::Namespaces);
    }
    if has_root {
        in_force = in_force.with(Layer::Root);
    }
    let others = [Layer::Limits, Layer::Privileges, Layer::Landlock, Layer::Seccomp];
    match try_in_child(has_namespaces, in_force.without(Layer::Root), &others) {
        Ok(results) => {
            for (layer, number) in others.into_iter().zip(results) {
                match number {
                    0 => in_force = in_force.with(layer),
                    number => refused(layer, &io::Error::from_raw_os_error(number)),
                }
            }
        }
        Err(error) => others.into_iter().for_each(|layer| refused(layer, &error)),
    }
    let grouped = match groups {
        Ok(groups) => try_group(groups, has_namespaces),
        Err(why) => Err(io::Error::other(why.clone())),
    };
    match grouped {
        Ok(()) => in_force = in_force.with(Layer::Cgroup),
        Err(error) => refused(Layer::Cgroup, &error),
    }
    barriers.in_force = in_force;
    barriers
}

/// Puts a child into a group that may hold one process, where it tries to make a second one.
///
/// That memory is bounded is only read back: to use it up would leave the kernel's report of a death in the machine's log at
/// every start.
fn try_group(groups: &mut Groups, namespaces: bool) -> io::Result<()> {
    let limits = GroupLimits {
        memory_bytes: Some(64 << 20),
        max_processes: Some(1),
        cpu_weight: Some(1),
        max_cpu_milli: Some(1000),
    };
    let group = groups.make(0, &limits)?;
    let outcome = (|| {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (mut reader, mut writer) = (std::fs::File::from(reader), std::fs::File::from(writer));
        let child = clone::clone(namespaces, Some(&group), 0, || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok()?;
            let second = clone::clone(false, None, 0, || Some(0));
            let number = match &second {
                Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
                Ok(_) => 0,
            };
            writer.write_all(&number.to_ne_bytes()).ok()?;
            // Stays until it is told to end, so that it can be looked at.
            loop {
                std::thread::park();
            }
        })?;
        drop(writer);
        let mut number = [0; 4];
        let read = reader.read_exact(&mut number);
        let held = group.holds(child.pid);
        child.kill();
        read?;
        match i32::from_ne_bytes(number) {
            libc::EAGAIN if !held? => Err(io::Error::other("a process was put into a group and is not in it")),
            libc::EAGAIN if !group.is_limited(&limits) => Err(io::Error::other("a group does not keep its limits")),
            libc::EAGAIN => Ok(()),
            0 => Err(io::Error::other("a group that may hold one process lets in more")),
            other => Err(io::Error::from_raw_os_error(other)),
        }
    })();
    groups.leave(group);
    outcome
}

/// Puts up `layers` one after the other in a child; the error number of each, 0 for none.
fn try_in_child(namespaces: bool, in_force: Layers, layers: &[Layer]) -> io::Result<Vec<i32>> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (mut reader, mut writer) = (std::fs::File::from(reader), std::fs::File::from(writer));
    let child = clone::clone(namespaces, None, 0, || {
        for layer in layers {
            let done = match layer {
                Layer::Root => lockdown::enter_own_root(),
                Layer::Limits => lockdown::set_limits(in_force),
                Layer::Privileges => lockdown::drop_privileges(in_force),
                Layer::Landlock => lockdown::forbid_files(in_force),
                Layer::Seccomp => seccomp::install(),
                Layer::Namespaces | Layer::Cgroup => Ok(()),
            };
            let number = done.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EOPNOTSUPP), |()| 0);
            writer.write_all(&number.to_ne_bytes()).ok()?;
        }
        Some(0)
    })?;
    drop(writer);
    let mut results = Vec::new();
    let mut number = [0; 4];
    while results.len() < layers.len() && reader.read_exact(&mut number).is_ok() {
        results.push(i32::from_ne_bytes(number));
    }
    child.wait_with(WaitIdOptions::EXITED)?;
    // Whoever ended before its time did not get through the next one.
    results.resize(layers.len(), libc::EIO);
    Ok(results)
}

/// The kernel's answer, with what to do about it where that is known.
fn words(layer: Layer, error: &io::Error) -> String {
    let hint = match layer {
        Layer::Namespaces => {
            "; user namespaces must be allowed (kernel.unprivileged_userns_clone, user.max_user_namespaces, the container's seccomp profile)"
        }
        Layer::Root => "; a container that masks parts of /proc forbids to mount it anew",
        Layer::Cgroup => {
            "; of version 2 the server needs a group of its own that is delegated to it (systemd: Delegate=yes), of version 1 it must be root"
        }
        Layer::Landlock => "; boot with `landlock` among the security modules (lsm=)",
        _ => "",
    };
    format!("{error}{hint}")
}
