//! What this kernel has, asked by loading tiny programs and by trying; nothing of it stays.

use std::{fs, io, os::fd::AsFd as _, path::PathBuf, thread};

use aya::{
    Ebpf,
    programs::{LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, tc::TcAttachOptions},
    sys::{Stats, enable_stats},
};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{attach, bpf, cgroup_root, host, object};
use crate::dataplane::Error;

/// Why not, in the words of the kernel.
pub type Answer = Result<(), String>;

/// BPF_CGROUP_INET6_GETPEERNAME of `enum bpf_attach_type`.
const GETPEERNAME6: u32 = 30;

/// The programs that ask.
pub struct Probes {
    plain: Ebpf,
    /// Those with maps; why not where these cannot be made.
    stores: Result<Ebpf, String>,
}

impl Probes {
    /// Opens them.
    ///
    /// # Errors
    /// There are none in this build, or this process may not load programs.
    pub fn open() -> Result<Self, Error> {
        host::check_rights()?;
        let plain = object::probes()?;
        Ok(Self { plain, stores: Ebpf::load(object::STORES).map_err(|error| chain(&error)) })
    }

    /// Whether a program loads.
    pub fn loads(&mut self, name: &str) -> Answer {
        self.load(name).map(drop)
    }

    fn load(&mut self, name: &str) -> Result<&mut Program, String> {
        let in_stores = self.plain.program(name).is_none();
        let object = if in_stores { self.stores.as_mut().map_err(|reason| reason.clone())? } else { &mut self.plain };
        let program = object.program_mut(name).ok_or("this build has no such probe")?;
        match attach::load_one(program) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
            Err(ProgramError::LoadError { io_error, .. }) => Err(io_error.to_string()),
            Err(error) => Err(chain(&error)),
        }
    }

    /// Whether a program can be attached to a cgroup by a link, and then another be put behind that link. Done on a cgroup
    /// that is made for it.
    ///
    /// # Errors
    /// Such a cgroup cannot be made.
    pub fn links(&mut self) -> io::Result<(Answer, Answer)> {
        let cgroup = Scratch::make()?;
        let folder = fs::File::open(&cgroup.0)?;
        let failed = |error: &dyn std::error::Error| chain(error);
        let mut link = None;
        let made = self.load("peer_names").and_then(|program| {
            let program = attach::program_fd(program).map_err(|error| failed(&error))?;
            link = Some(bpf::create_link(program, folder.as_fd(), GETPEERNAME6).map_err(|error| error.to_string())?);
            Ok(())
        });
        let Some(link) = link else { return Ok((made, Err("there is no link".into()))) };
        // Once more the same: another program of that kind.
        let updated = object::probes().map_err(|error| error.to_string()).and_then(|mut other| {
            let program = other.program_mut("peer_names").ok_or("this build has no such probe")?;
            attach::load_one(program).map_err(|error| failed(&error))?;
            let program = attach::program_fd(program).map_err(|error| failed(&error))?;
            bpf::update_link(link.as_fd(), program).map_err(|error| error.to_string())
        });
        Ok((made, updated))
    }

    /// Whether TC programs can be attached by links (tcx). Done in a network namespace that is made for it.
    pub fn tcx(&mut self) -> Answer {
        let Program::SchedClassifier(program) = self.load("packets")? else { return Err("no TC program".into()) };
        let attach = |program: &mut SchedClassifier| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("cannot make a network namespace: {error}"))?;
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            let link = program.attach_with_options("lo", TcAttachType::Ingress, options);
            let link = link.and_then(|link| program.take_link(link));
            link.map(drop).map_err(|error| chain(&error))
        };
        // On a thread that ends with the namespace.
        thread::scope(|scope| scope.spawn(|| attach(program)).join()).unwrap_or_else(|_| Err("the probe failed".into()))
    }

    /// Whether the memory of programs and maps is that of their cgroup, and not bounded by RLIMIT_MEMLOCK.
    pub fn memory_is_the_cgroups(&self) -> Answer {
        let before = getrlimit(Resource::Memlock);
        setrlimit(Resource::Memlock, Rlimit { current: Some(0), ..before }).map_err(|error| error.to_string())?;
        let loaded = object::probes().map_err(|error| error.to_string()).and_then(|mut probes| {
            let program = probes.program_mut("connect6").ok_or("this build has no such probe")?;
            attach::load_one(program).map_err(|error| chain(&error))
        });
        setrlimit(Resource::Memlock, before).map_err(|error| error.to_string())?;
        loaded
    }

    /// Whether the kernel measures programs on request.
    pub fn statistics(&self) -> Answer {
        enable_stats(Stats::RunTime).map(drop).map_err(|error| chain(&error))
    }
}

/// A cgroup below the root that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> io::Result<Self> {
        let root = cgroup_root().map_err(io::Error::other)?;
        let path = root.join(format!("proxymatic-probe-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match Error::kernel("", error) {
        Error::Kernel { reason, .. } => reason,
        other => other.to_string(),
    }
}
