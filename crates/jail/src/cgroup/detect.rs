//! Which control groups this process is in, and where they are mounted: text in, paths out.

use std::path::{Path, PathBuf};

/// The interface of the control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One for all.
    V2,
}

/// Where this process's groups are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) version: Version,
    pub(crate) memory: PathBuf,
    pub(crate) pids: PathBuf,
    pub(crate) cpu: PathBuf,
    /// Version 1 only, where it is a controller, and may be missing.
    pub(crate) freezer: Option<PathBuf>,
}

/// The controllers without which a group bounds too little.
pub(super) const NEEDED: [&str; 3] = ["memory", "pids", "cpu"];

/// Finds this process's groups: those of version 2 if they have the controllers, else those of version 1.
///
/// `groups` is `/proc/self/cgroup`, `mounts` is `/proc/self/mountinfo` (`man 7 cgroups`, `man 5 proc`).
///
/// # Errors
/// What is missing, in words.
pub(crate) fn find(groups: &str, mounts: &str) -> Result<Found, String> {
    let v2 = unified(groups, mounts);
    let controllers = v2.as_ref().map(|path| std::fs::read_to_string(path.join("cgroup.controllers")));
    let has = |name: &str| match &controllers {
        Some(Ok(list)) => list.split_whitespace().any(|controller| controller == name),
        _ => false,
    };
    if let Some(path) = &v2
        && NEEDED.into_iter().all(has)
    {
        let path = path.clone();
        return Ok(Found { version: Version::V2, memory: path.clone(), pids: path.clone(), cpu: path, freezer: None });
    }
    match NEEDED.map(|name| legacy(name, groups, mounts)) {
        [Some(memory), Some(pids), Some(cpu)] => {
            Ok(Found { version: Version::V1, memory, pids, cpu, freezer: legacy("freezer", groups, mounts) })
        }
        _ if v2.is_some() => {
            let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !has(name)).collect();
            Err(format!("the server's control group is not given the controllers {}", missing.join(", ")))
        }
        _ => Err("no control groups are mounted".to_owned()),
    }
}

/// This process's group of version 2.
fn unified(groups: &str, mounts: &str) -> Option<PathBuf> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().filter_map(Mount::read).find(|mount| mount.kind == "cgroup2")?.path_of(own)
}

/// This process's group of version 1 of one controller.
fn legacy(controller: &str, groups: &str, mounts: &str) -> Option<PathBuf> {
    let own = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    })?;
    let of_controller =
        |mount: &Mount<'_>| mount.kind == "cgroup" && mount.options.split(',').any(|name| name == controller);
    mounts.lines().filter_map(Mount::read).find(of_controller)?.path_of(own)
}

/// One line of `mountinfo`.
struct Mount<'a> {
    /// The part of the file system that is mounted.
    root: &'a str,
    at: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (place, what) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, at) = (place.next()?, place.next()?);
        let mut what = what.split(' ');
        let kind = what.next()?;
        Some(Self { root, at, kind, options: what.nth(1)? })
    }

    /// Where a group of this hierarchy is to be found, unless it lies outside of what is mounted.
    fn path_of(&self, group: &str) -> Option<PathBuf> {
        let inside = Path::new(group).strip_prefix(self.root).ok()?;
        let leaves = inside.components().any(|part| part == std::path::Component::ParentDir);
        (!leaves).then(|| Path::new(self.at).join(inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "9:name=systemd:/\n8:pids:/\n6:freezer:/\n4:memory:/own/a:b\n2:cpuacct,cpu:/\n0::/some\n";

    fn mounts(unified: &Path) -> String {
        format!(
            "30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpuacct,cpu\n\
             31 29 0:27 / /sys/fs/cgroup/pids rw,relatime shared:3 - cgroup cgroup rw,pids\n\
             32 29 0:28 /own /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             33 29 0:29 / {} rw,relatime - cgroup2 cgroup2 rw\n",
            unified.display()
        )
    }

    #[test]
    fn version_2_is_taken_where_it_has_the_controllers_and_version_1_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("some");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        let found = find(MIXED, &mounts(folder.path())).unwrap();
        assert_eq!((found.version, &found.memory, &found.cpu), (Version::V2, &own, &own));
        std::fs::write(own.join("cgroup.controllers"), "hugetlb\n").unwrap();
        let found = find(MIXED, &mounts(folder.path())).unwrap();
        assert_eq!(found.version, Version::V1);
        // Below what is mounted, which here is not the whole hierarchy; a colon belongs to the name.
        assert_eq!(found.memory, Path::new("/sys/fs/cgroup/memory/a:b"));
        assert_eq!(found.cpu, Path::new("/sys/fs/cgroup/cpu/"));
        assert_eq!(found.freezer, None, "in a group of it, and it is mounted nowhere");
    }

    #[test]
    fn what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find("0::/\n", "").unwrap_err(), "no control groups are mounted");
        std::fs::write(folder.path().join("cgroup.controllers"), "memory pids\n").unwrap();
        let why = find("0::/\n", &mounts(folder.path())).unwrap_err();
        assert!(why.ends_with("the controllers cpu"), "{why}");
        // A group of another namespace lies outside of what is mounted here.
        assert!(find("0::/../other\n", &mounts(folder.path())).is_err());
    }
}
