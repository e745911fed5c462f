//! The memory that this process may still take: of the system, of the control groups that it is in, of its address space.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::gib;

/// The tightest limit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Room {
    /// Bytes that are left.
    pub(crate) bytes: f64,
    /// Whose limit it is.
    limit: String,
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} are left {}", gib(self.bytes), self.limit)
    }
}

impl Room {
    /// What is left now; `None` where the system does not say, which is everywhere but on Linux.
    pub(crate) fn now() -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).ok();
        let mut rooms = Vec::new();
        if let Some(bytes) = read("/proc/meminfo").as_deref().and_then(in_system) {
            rooms.push(Self::new(bytes, "in the system, swap included"));
        }
        if let (Some(limits), Some(status)) = (read("/proc/self/limits"), read("/proc/self/status"))
            && let Some(bytes) = in_address_space(&limits, &status)
        {
            rooms.push(Self::new(bytes, "of the address space (ulimit -v)"));
        }
        if let Some(groups) = read("/proc/self/cgroup") {
            for folder in group_folders(&groups, Path::new("/sys/fs/cgroup")) {
                if let Some(bytes) = in_group(&folder) {
                    let limit = format!("of the control group's limit in {}", folder.display());
                    rooms.push(Self { bytes, limit });
                }
            }
        }
        rooms.into_iter().min_by(|a, b| a.bytes.total_cmp(&b.bytes))
    }

    /// The part of one of several processes that begin together.
    pub(crate) fn shared_by(self, processes: usize) -> Self {
        if processes == 1 {
            return self;
        }
        Self {
            bytes: self.bytes / processes as f64,
            limit: format!("for each of {processes} processes {}", self.limit),
        }
    }

    fn new(bytes: f64, limit: &str) -> Self {
        Self {
            bytes,
            limit: limit.into(),
        }
    }
}

/// The number behind `key` in lines of `key number unit`.
fn field(text: &str, key: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Of `/proc/meminfo`, in kB there.
fn in_system(meminfo: &str) -> Option<f64> {
    let available = field(meminfo, "MemAvailable:")?;
    Some(1024.0 * (available + field(meminfo, "SwapFree:").unwrap_or(0.0)))
}

/// Of `/proc/self/limits`, in bytes, and `/proc/self/status`, in kB.
fn in_address_space(limits: &str, status: &str) -> Option<f64> {
    let soft = field(limits, "Max address space")?;
    Some((soft - 1024.0 * field(status, "VmSize:")?).max(0.0))
}

/// The folders of the memory controllers that `/proc/self/cgroup` names, and of the groups around them: version 2, then version 1.
fn group_folders(groups: &str, root: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let base = match controllers {
            "" => root.to_owned(),
            names if names.split(',').any(|name| name == "memory") => root.join("memory"),
            _ => continue,
        };
        let path = path.trim_start_matches('/');
        let around = Path::new(path).ancestors();
        folders.extend(around.map(|part| base.join(part)));
    }
    folders
}

/// Limit less use of one group; files that the system keeps in memory do not count, as it drops them when memory is wanted.
fn in_group(folder: &Path) -> Option<f64> {
    let number = |name: &str| -> Option<f64> {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        text.trim().parse().ok()
    };
    let [limit, used] = [
        ["memory.max", "memory.current"],
        ["memory.limit_in_bytes", "memory.usage_in_bytes"],
    ]
    .into_iter()
    .find_map(|[limit, used]| Some([number(limit)?, number(used)?]))?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let files: f64 = ["inactive_file ", "active_file "]
        .iter()
        .filter_map(|key| field(&stat, key))
        .sum();
    Some((limit - (used - files).max(0.0)).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_files_are_read() {
        let meminfo =
            "MemTotal:  8000 kB\nMemFree: 10 kB\nMemAvailable:   3000 kB\nSwapFree: 1000 kB\n";
        assert_eq!(in_system(meminfo), Some(4000.0 * 1024.0));
        assert_eq!(in_system("MemTotal: 5 kB\n"), None);
        let limits = "Max cpu time  unlimited unlimited seconds\nMax address space         4096000              unlimited            bytes\n";
        let status = "Name: x\nVmSize:\t    1000 kB\n";
        assert_eq!(in_address_space(limits, status), Some(3_072_000.0));
        let unlimited =
            "Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(in_address_space(unlimited, status), None);
    }

    #[test]
    fn groups_of_both_versions_and_around_them_count() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let two = group_folders("0::/a/b\n", root);
        assert_eq!(two, [root.join("a/b"), root.join("a"), root.join("")]);
        let one = group_folders("5:cpu,memory:/job\n4:cpuset:/other\n", root);
        assert_eq!(one, [root.join("memory/job"), root.join("memory")]);
        assert_eq!(in_group(root), None);
        let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(in_group(root), None, "no limit");
        write("memory.max", "1000\n");
        assert_eq!(in_group(root), Some(300.0));
        write(
            "memory.stat",
            "anon 5\ninactive_file 200\nactive_file 100\n",
        );
        assert_eq!(in_group(root), Some(600.0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_some() {
        let room = Room::now().unwrap();
        assert!(room.bytes > 1e6 && room.to_string().contains("GiB are left"));
        let half = room.clone().shared_by(2);
        assert_eq!(half.bytes, room.bytes / 2.0);
        assert!(half.to_string().contains("each of 2 processes"), "{half}");
        assert_eq!(room.clone().shared_by(1), room);
    }
}
