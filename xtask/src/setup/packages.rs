//! The Debian packages that builds, tests and the demo use, and the file that shows each is there.
//!
//! Only a list and a look at files: [`super`] installs.

use std::path::Path;

/// A package, how to see it, and why it is wanted.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    /// It is there if one of these exists.
    files: &'static [&'static str],
    pub(crate) why: &'static str,
    /// What a person installs on another distribution.
    pub(crate) elsewhere: &'static str,
}

const TOOLS: &[Package] = &[
    Package {
        name: "gcc",
        files: &["/usr/bin/cc"],
        why: "links every program, builds the C in the TLS library",
        elsewhere: "a C compiler",
    },
    Package {
        name: "libc6-dev",
        files: &["/usr/include/stdlib.h"],
        why: "the C library's headers and start files",
        elsewhere: "the C library's headers",
    },
    Package {
        name: "llvm-22-dev",
        files: &["/usr/lib/llvm-22/include/llvm-c/Core.h"],
        why: "the code generator inside bpf-linker",
        elsewhere: "LLVM 22 with its headers in /usr/lib/llvm-22",
    },
    Package {
        name: "libzstd-dev",
        files: &["/usr/include/zstd.h"],
        why: "linked by LLVM",
        elsewhere: "the headers of zstd",
    },
    Package {
        name: "zlib1g-dev",
        files: &["/usr/include/zlib.h"],
        why: "linked by LLVM",
        elsewhere: "the headers of zlib",
    },
    Package {
        name: "iproute2",
        files: &["/sbin/ip", "/usr/sbin/ip", "/usr/bin/ip", "/bin/ip"],
        why: "makes the network namespaces of tests and demo",
        elsewhere: "iproute2",
    },
    Package {
        name: "nftables",
        files: &["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"],
        why: "masquerades what leaves the cluster",
        elsewhere: "nftables",
    },
    Package {
        name: "containerd",
        files: &["/usr/bin/containerd"],
        why: "a container runtime, for the tests of the CNI plug-in and the pause image",
        elsewhere: "containerd",
    },
    Package {
        name: "runc",
        files: &["/usr/sbin/runc", "/usr/bin/runc"],
        why: "starts the containers of those tests",
        elsewhere: "runc",
    },
    Package {
        name: "busybox-static",
        files: &["/bin/busybox", "/usr/bin/busybox"],
        why: "what runs in the containers of those tests",
        elsewhere: "a static busybox at /bin/busybox",
    },
    Package {
        name: "containernetworking-plugins",
        files: &["/usr/lib/cni/ptp"],
        why: "what the sandbox bench measures ours beside",
        elsewhere: "the reference CNI plug-ins in /usr/lib/cni",
    },
    Package {
        name: "iperf3",
        files: &["/usr/bin/iperf3"],
        why: "throughput and packets per second in the packets bench",
        elsewhere: "iperf3",
    },
    Package { name: "curl", files: &["/usr/bin/curl"], why: "asks services in the demo", elsewhere: "curl" },
    Package {
        name: "bind9-dnsutils",
        files: &["/usr/bin/dig"],
        why: "dig asks names in the demo",
        elsewhere: "dig",
    },
    Package {
        name: "strace",
        files: &["/usr/bin/strace"],
        why: "counts the system calls of a question in tests",
        elsewhere: "strace",
    },
    Package {
        name: "knot-dnsutils",
        files: &["/usr/bin/kdig"],
        why: "kdig asks names in tests",
        elsewhere: "kdig",
    },
    Package {
        name: "musl-tools",
        files: &["/usr/bin/musl-gcc"],
        why: "a second C library asks names in tests",
        elsewhere: "musl-gcc",
    },
    Package {
        name: "python3-dnspython",
        files: &["/usr/lib/python3/dist-packages/dns/__init__.py"],
        why: "a third client asks names in tests",
        elsewhere: "dnspython for /usr/bin/python3",
    },
];

/// Debian's own compiler with the source of its library: a matched set, beside rustup.
const LIBRARY_SOURCE: &[Package] = &[
    Package {
        name: "rustc-web",
        files: &["/usr/bin/rustc"],
        why: "compiles the kernel programs",
        elsewhere: "`rustup component add rust-src`",
    },
    Package {
        name: "cargo-web",
        files: &["/usr/bin/cargo"],
        why: "builds the kernel programs",
        elsewhere: "`rustup component add rust-src`",
    },
    Package {
        name: "rust-web-src",
        files: &["/usr/lib/rustlib/src/rust/library/core/Cargo.toml"],
        why: "the library source: the kernel target has no prebuilt core",
        elsewhere: "`rustup component add rust-src`",
    },
];

/// What is not there. With the library source of the own compiler, Debian's compiler is not wanted.
pub(crate) fn missing(has_library_source: bool) -> Vec<&'static Package> {
    let compiler = if has_library_source { &[] } else { LIBRARY_SOURCE };
    TOOLS.iter().chain(compiler).filter(|package| !package.is_there()).collect()
}

impl Package {
    fn is_there(&self) -> bool {
        self.files.iter().any(|file| Path::new(file).exists())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_by_any_of_its_files() {
        let package =
            Package { name: "x", files: &["/no/such/file", "/proc/self/exe"], why: "", elsewhere: "" };
        assert!(package.is_there());
        let package = Package { name: "x", files: &["/no/such/file"], why: "", elsewhere: "" };
        assert!(!package.is_there());
    }

    #[test]
    fn the_compilers_own_library_source_makes_debians_compiler_unneeded() {
        assert!(missing(true).iter().all(|package| !package.name.contains("rust")));
    }
}
