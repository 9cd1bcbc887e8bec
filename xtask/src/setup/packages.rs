//! The distribution's packages that the workspace needs, each with its reason: root installs them with apt, other users
//! get their names.

use std::{env, path::Path, process::Command};

use anyhow::{Result, anyhow, bail};

use crate::{command, workspace};

/// The part of the workspace that needs a package.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    Build,
    Compiler,
    Linker,
    Tools,
    Etcd,
    Docker,
    Image,
    Programs,
    Surface,
    Dist,
    RemotePeers,
    Peers,
    Load,
}

struct Package {
    part: Part,
    name: &'static str,
    /// Files by path, programs by name: if all of them exist, their origin does not matter.
    gives: &'static [&'static str],
    why: &'static str,
}

/// The whole list. `NN` is the LLVM major version of the compiler.
const PACKAGES: [Package; 42] = [
    // A C compiler exists, since it has linked this task.
    Package {
        part: Part::Build,
        name: "make",
        gives: &["make"],
        why: "the agent's allocator, jemalloc, is built with it",
    },
    Package {
        part: Part::Compiler,
        name: "rustc-web",
        gives: &["/usr/bin/rustc"],
        why: "a compiler as new as the workspace asks, in bookworm-security",
    },
    Package {
        part: Part::Compiler,
        name: "libstd-rust-web-dev-bpf",
        gives: &["/usr/lib/rustlib/bpfel-unknown-none/lib"],
        why: "`core` compiled for BPF: no nightly, no -Z build-std",
    },
    Package {
        part: Part::Linker,
        name: "llvm-NN-dev",
        gives: &["/usr/lib/llvm-NN/bin/llvm-config", "/usr/lib/llvm-NN/lib/libLLVM.so"],
        why: "bpf-linker is linked with the LLVM of the compiler",
    },
    Package {
        part: Part::Tools,
        name: "iproute2",
        gives: &["ip", "ss"],
        why: "network namespaces, veth pairs, socket listings",
    },
    Package {
        part: Part::Tools,
        name: "util-linux",
        gives: &["nsenter", "unshare"],
        why: "programs run in namespaces",
    },
    Package { part: Part::Tools, name: "curl", gives: &["curl"], why: "an ordinary client that knows nothing of us" },
    Package {
        part: Part::Tools,
        name: "bpftool",
        gives: &["bpftool"],
        why: "what the kernel itself says is attached to a cgroup",
    },
    Package {
        part: Part::Tools,
        name: "ethtool",
        gives: &["ethtool"],
        why: "a veth takes frames that XDP redirects to it only with GRO on",
    },
    Package {
        part: Part::Etcd,
        name: "etcd-server",
        gives: &["etcd"],
        why: "the registrator source is tested with it",
    },
    Package {
        part: Part::Docker,
        name: "docker.io",
        gives: &["dockerd", "/usr/bin/docker"],
        why: "containers on a bridge, of a daemon that the tests start themselves",
    },
    Package {
        part: Part::Docker,
        name: "docker-compose",
        gives: &["/usr/bin/docker-compose"],
        why: "the local cluster, as people start it",
    },
    Package {
        part: Part::Docker,
        name: "dropbear-bin",
        gives: &["dropbear", "dropbearkey"],
        why: "an SSH daemon of the host that containers reach; the package has no unit that starts it",
    },
    Package {
        part: Part::Image,
        name: "libc6-dev",
        // By its header if it is for another processor, since the library's folder has the processor's name.
        gives: &["/usr/include/features.h"],
        why: "the C library that static binaries are linked with",
    },
    Package {
        part: Part::Image,
        name: "ca-certificates",
        gives: &["/etc/ssl/certs/ca-certificates.crt"],
        why: "whom the agent in the image trusts",
    },
    // Real programs that the netns tier runs through service ports. If two packages have a program, the one without a
    // unit that starts it is used.
    Package {
        part: Part::Programs,
        name: "redis-tools",
        gives: &["redis-cli", "redis-benchmark", "redis-check-rdb"],
        why: "a client with many connections; the server is in it under the name of redis-check-rdb",
    },
    Package {
        part: Part::Programs,
        name: "postgresql",
        gives: &["psql", "pg_createcluster"],
        why: "a client that tries each address of a name; the server is in /usr/lib/postgresql",
    },
    Package {
        part: Part::Programs,
        name: "bind9-dnsutils",
        gives: &["dig"],
        why: "a client that looks at who answers its datagrams",
    },
    Package { part: Part::Programs, name: "dnsmasq-base", gives: &["dnsmasq"], why: "a name server for it" },
    Package {
        part: Part::Programs,
        name: "nginx",
        gives: &["nginx"],
        why: "a client that does not block, with a resolver of its own",
    },
    Package { part: Part::Programs, name: "jq", gives: &["jq"], why: "reads Marathon's answers in vagrant/smoke.sh" },
    Package { part: Part::Programs, name: "wrk", gives: &["wrk"], why: "many requests over connections that stay" },
    Package { part: Part::Programs, name: "iperf3", gives: &["iperf3"], why: "many bytes and datagrams" },
    Package { part: Part::Programs, name: "iputils-ping", gives: &["ping"], why: "echoes that are not ours" },
    Package {
        part: Part::Programs,
        name: "traceroute",
        gives: &["traceroute"],
        why: "a client that looks at who says that a packet has come to its end",
    },
    Package {
        part: Part::RemotePeers,
        name: "nftables",
        gives: &["/usr/sbin/nft"],
        why: "address translation by netfilter, which forwarding is measured against",
    },
    Package {
        part: Part::RemotePeers,
        name: "haproxy",
        gives: &["/usr/sbin/haproxy"],
        why: "the proxy of meltwater/proxymatic, which forwarding is measured against",
    },
    Package {
        part: Part::Surface,
        name: "prometheus",
        gives: &["prometheus", "promtool"],
        why: "a real Prometheus scrapes the agent; promtool checks metrics and rules",
    },
    Package { part: Part::Surface, name: "chromium", gives: &["chromium"], why: "a real browser shows the page" },
    Package {
        part: Part::Surface,
        name: "chromium-driver",
        gives: &["chromedriver"],
        why: "tells the browser what to do",
    },
    Package { part: Part::Surface, name: "tmux", gives: &["tmux"], why: "a real terminal, for `top`" },
    Package { part: Part::Dist, name: "shellcheck", gives: &["shellcheck"], why: "checks the scripts" },
    Package { part: Part::Dist, name: "systemd", gives: &["systemd-analyze"], why: "checks the units" },
    Package {
        part: Part::Dist,
        name: "debootstrap",
        gives: &["/usr/sbin/debootstrap"],
        why: "makes a small Debian, in which the package is installed and removed",
    },
    Package { part: Part::Peers, name: "haproxy", gives: &["haproxy"], why: "forwards TCP for meltwater/proxymatic" },
    Package { part: Part::Peers, name: "pen", gives: &["pen"], why: "forwards UDP for meltwater/proxymatic" },
    Package { part: Part::Peers, name: "nginx", gives: &["nginx"], why: "forwards TCP and UDP" },
    Package {
        part: Part::Peers,
        name: "libnginx-mod-stream",
        gives: &["/usr/lib/nginx/modules/ngx_stream_module.so"],
        why: "the part of nginx that does",
    },
    Package { part: Part::Peers, name: "nftables", gives: &["nft"], why: "translates addresses" },
    Package {
        part: Part::Peers,
        name: "iptables",
        gives: &["iptables", "iptables-restore"],
        why: "translates addresses, as most clusters do",
    },
    Package { part: Part::Load, name: "wrk", gives: &["wrk"], why: "many requests over connections that stay" },
    Package { part: Part::Load, name: "iperf3", gives: &["iperf3"], why: "many bytes" },
];

/// Installs the packages of a part whose files are missing.
pub(super) fn provide(part: Part, llvm: Option<u32>) -> Result<()> {
    let complete = |package: &Package| package.gives.iter().all(|it| is_there(&fill(it, llvm)));
    let missing: Vec<_> = of(part).filter(|it| !complete(it)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    install_all(&missing, llvm)
}

/// Installs the packages of a part, even if an older version already has their files.
pub(super) fn install(part: Part, llvm: Option<u32>) -> Result<()> {
    let packages: Vec<_> = of(part).collect();
    install_all(&packages, llvm)
}

fn install_all(packages: &[&Package], llvm: Option<u32>) -> Result<()> {
    let names: Vec<_> = packages.iter().map(|it| fill(it.name, llvm)).collect();
    let mut commands = [apt_update(), apt_install(&names)];
    if !is_there("apt-get") || !workspace::is_root() {
        bail!("{}", remedy(packages, llvm, &commands));
    }
    println!("installing {}", names.join(", "));
    for step in &mut commands {
        command::run(step).map_err(|error| anyhow!("cannot install {}: {error}", names.join(", ")))?;
    }
    Ok(())
}

fn apt_update() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["update", "--quiet"]);
    command
}

fn apt_install(names: &[String]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // --no-remove: rustc-web conflicts with the packages rustc and rustup, and this task must not remove them.
        .args(["install", "--yes", "--no-remove", "--no-install-recommends"])
        .args(names);
    command
}

fn remedy(packages: &[&Package], llvm: Option<u32>, commands: &[Command]) -> String {
    let reason = |it: &&Package| format!("  {}: {}\n", fill(it.name, llvm), it.why);
    let reasons: String = packages.iter().map(reason).collect();
    let steps: String = commands.iter().map(|it| format!("  {}\n", command::show(it))).collect();
    format!("missing packages:\n{reasons}run as root, then run this task again:\n{}", steps.trim_end())
}

fn of(part: Part) -> impl Iterator<Item = &'static Package> {
    PACKAGES.iter().filter(move |it| it.part == part)
}

fn fill(text: &str, llvm: Option<u32>) -> String {
    llvm.map_or_else(|| text.to_owned(), |major| text.replace("NN", &major.to_string()))
}

fn is_there(what: &str) -> bool {
    if what.starts_with('/') {
        return Path::new(what).exists();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(what).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_names_have_the_llvm_version_filled_in() {
        let names: Vec<_> = of(Part::Linker).map(|it| fill(it.name, Some(22))).collect();
        assert_eq!(names, ["llvm-22-dev"]);
    }

    #[test]
    fn only_linker_packages_depend_on_llvm() {
        let depends = PACKAGES.iter().filter(|it| it.name.contains("NN"));
        assert!(depends.map(|it| it.part).all(|it| it == Part::Linker));
    }

    #[test]
    fn apt_command_is_noninteractive_and_removes_nothing() {
        assert_eq!(
            command::show(&apt_install(&["curl".into()])),
            "apt-get install --yes --no-remove --no-install-recommends curl"
        );
    }

    #[test]
    fn remedy_names_packages_reasons_and_commands() {
        let curl: Vec<_> = PACKAGES.iter().filter(|it| it.name == "curl").collect();
        let commands = [apt_update(), apt_install(&["curl".into()])];
        assert_eq!(
            remedy(&curl, None, &commands),
            "missing packages:
  curl: an ordinary client that knows nothing of us
run as root, then run this task again:
  apt-get update --quiet
  apt-get install --yes --no-remove --no-install-recommends curl"
        );
    }

    #[test]
    fn files_and_programs_are_found() {
        assert!(is_there("/bin/sh"));
        assert!(is_there("sh"));
        assert!(!is_there("no-such-program"));
    }
}
