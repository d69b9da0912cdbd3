//! What this machine offers for the socket programs, and what is missing, in plain words. For `fairway check`;
//! it changes nothing.

use std::path::Path;

use aya::Btf;

/// What the daemon needs (capabilities(7)), and whether CAP_SYS_ADMIN stands for it. The verifier asks for
/// PERFMON where a program keeps an address of the kernel, and the last one is for port 53.
const NEEDED: [(u32, &str, bool); 4] = [
    (39, "CAP_BPF", true),
    (38, "CAP_PERFMON", true),
    (12, "CAP_NET_ADMIN", false),
    (10, "CAP_NET_BIND_SERVICE", false),
];
const CAP_SYS_ADMIN: u32 = 21;
/// bpf_set_retval is of 5.18; 6.1 is the oldest kernel that is maintained and has it.
const OLDEST: (u32, u32) = (6, 1);

/// One thing that the programs need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is.
    pub what: &'static str,
    /// What was found, or else one sentence that says what to do.
    pub found: Result<String, String>,
}

/// Looks at everything that the proxy needs.
pub fn check(cgroup: &Path, bpf_dir: &Path) -> Vec<Check> {
    vec![
        Check { what: "kernel", found: kernel() },
        Check { what: "capabilities", found: capabilities() },
        Check { what: "cgroup v2", found: cgroup_v2(cgroup) },
        Check { what: "bpf file system", found: bpffs(bpf_dir) },
        Check { what: "kernel types (BTF)", found: types() },
    ]
}

fn kernel() -> Result<String, String> {
    let release = read("/proc/sys/kernel/osrelease")?;
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        return Ok(format!("Linux {release}"));
    }
    Err(format!("Linux {release} is too old: the programs need {}.{} or newer", OLDEST.0, OLDEST.1))
}

fn capabilities() -> Result<String, String> {
    let status = read("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let has = |capability: u32| effective & (1 << capability) != 0;
    let lacks = |(capability, _, stood_for): &(u32, &str, bool)| {
        !(has(*capability) || *stood_for && has(CAP_SYS_ADMIN))
    };
    let missing: Vec<&str> = NEEDED.iter().filter(|needed| lacks(needed)).map(|(_, name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(NEEDED.map(|(_, name, _)| name).join(", "));
    }
    let verb = if missing.len() == 1 { "is" } else { "are" };
    Err(format!("{} {verb} missing: run fairway as root", missing.join(", ")))
}

fn cgroup_v2(cgroup: &Path) -> Result<String, String> {
    let found = rustix::fs::statfs(cgroup).map_err(|error| {
        format!(
            "the cgroup {} cannot be read ({error}): name a cgroup v2 directory with --cgroup",
            cgroup.display()
        )
    })?;
    if found.f_type == libc::CGROUP2_SUPER_MAGIC {
        return Ok(cgroup.display().to_string());
    }
    Err(format!(
        "{} is not of cgroup v2: name a directory of a cgroup2 mount with --cgroup",
        cgroup.display()
    ))
}

fn bpffs(bpf_dir: &Path) -> Result<String, String> {
    let existing = bpf_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let kind = rustix::fs::statfs(existing).map_or(0, |found| found.f_type);
    if kind == libc::BPF_FS_MAGIC {
        return Ok(bpf_dir.display().to_string());
    }
    Err(format!(
        "{} is not on a bpf file system: `mount -t bpf bpf /sys/fs/bpf` mounts one",
        bpf_dir.display()
    ))
}

fn types() -> Result<String, String> {
    match Btf::from_sys_fs() {
        Ok(_) => Ok("/sys/kernel/btf/vmlinux".into()),
        Err(error) => {
            Err(format!("the kernel does not describe its types ({error}): it needs CONFIG_DEBUG_INFO_BTF"))
        }
    }
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))
}
