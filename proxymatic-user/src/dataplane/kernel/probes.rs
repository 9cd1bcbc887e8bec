//! Feature probes: what this kernel supports, found out by loading tiny programs and by trying. Leaves nothing
//! behind.

use std::{fs, io, os::fd::AsFd as _, path::PathBuf, thread};

use aya::{
    Ebpf,
    programs::{LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, tc::TcAttachOptions},
    sys::{Stats, enable_stats},
};
use aya_obj::generated::bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME;
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{attach, bpf, cgroup_root, host, object};
use crate::dataplane::Error;

/// Whether the kernel supports a feature, else the kernel's reason.
pub type Answer = Result<(), String>;

/// The programs of the feature probes.
pub struct Probes {
    plain: Ebpf,
    /// The programs that have maps; the kernel's reason if it refuses the maps.
    with_maps: Result<Ebpf, String>,
}

impl Probes {
    /// Opens the programs.
    ///
    /// # Errors
    /// Fails if this build has no feature probes, or if this process may not load programs.
    pub fn open() -> Result<Self, Error> {
        host::check_own_capabilities()?;
        let plain = object::probes()?;
        Ok(Self { plain, with_maps: Ebpf::load(object::PROBES_WITH_MAPS).map_err(|error| error_chain(&error)) })
    }

    /// Checks that a program loads.
    pub fn loads(&mut self, name: &str) -> Answer {
        self.load(name).map(drop)
    }

    fn load(&mut self, name: &str) -> Result<&mut Program, String> {
        let has_maps = self.plain.program(name).is_none();
        let object = if has_maps { self.with_maps.as_mut().map_err(|reason| reason.clone())? } else { &mut self.plain };
        let program = object.program_mut(name).ok_or("this build has no such feature probe")?;
        match attach::load_one(program) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
            Err(ProgramError::LoadError { io_error, .. }) => Err(io_error.to_string()),
            Err(error) => Err(error_chain(&error)),
        }
    }

    /// Checks that a link can attach a program to a cgroup, and that the program of the link can be replaced. Tries
    /// both on a temporary cgroup.
    ///
    /// # Errors
    /// Fails if the temporary cgroup cannot be created.
    pub fn links(&mut self) -> io::Result<(Answer, Answer)> {
        let cgroup = Scratch::make()?;
        let folder = fs::File::open(&cgroup.0)?;
        let failed = |error: &dyn std::error::Error| error_chain(error);
        let mut link = None;
        let made = self.load("peer_names").and_then(|program| {
            let program = attach::program_fd(program).map_err(|error| failed(&error))?;
            let created = bpf::create_link(program, folder.as_fd(), BPF_CGROUP_INET6_GETPEERNAME);
            link = Some(created.map_err(|error| error.to_string())?);
            Ok(())
        });
        let Some(link) = link else { return Ok((made, Err("there is no link".into()))) };
        // Another instance of the same program.
        let updated = object::probes().map_err(|error| error.to_string()).and_then(|mut other| {
            let program = other.program_mut("peer_names").ok_or("this build has no such feature probe")?;
            attach::load_one(program).map_err(|error| failed(&error))?;
            let program = attach::program_fd(program).map_err(|error| failed(&error))?;
            bpf::update_link(link.as_fd(), program).map_err(|error| error.to_string())
        });
        Ok((made, updated))
    }

    /// Checks that TC programs can be attached by links (tcx), in a temporary network namespace.
    pub fn tcx(&mut self) -> Answer {
        let Program::SchedClassifier(program) = self.load("packets")? else { return Err("no TC program".into()) };
        let attach = |program: &mut SchedClassifier| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("cannot create a network namespace: {error}"))?;
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            let link = program.attach_with_options("lo", TcAttachType::Ingress, options);
            let link = link.and_then(|link| program.take_link(link));
            link.map(drop).map_err(|error| error_chain(&error))
        };
        // On a thread of its own; the namespace ends with it.
        thread::scope(|scope| scope.spawn(|| attach(program)).join())
            .unwrap_or_else(|_| Err("the feature probe panicked".into()))
    }

    /// Checks that memory of programs and maps is charged to the cgroup and not bounded by RLIMIT_MEMLOCK.
    pub fn memory_is_charged_to_cgroup(&self) -> Answer {
        let before = getrlimit(Resource::Memlock);
        setrlimit(Resource::Memlock, Rlimit { current: Some(0), ..before }).map_err(|error| error.to_string())?;
        let loaded = object::probes().map_err(|error| error.to_string()).and_then(|mut probes| {
            let program = probes.program_mut("connect6").ok_or("this build has no such feature probe")?;
            attach::load_one(program).map_err(|error| error_chain(&error))
        });
        setrlimit(Resource::Memlock, before).map_err(|error| error.to_string())?;
        loaded
    }

    /// Checks that the kernel measures the run time of programs on request.
    pub fn run_statistics(&self) -> Answer {
        enable_stats(Stats::RunTime).map(drop).map_err(|error| error_chain(&error))
    }
}

/// A temporary cgroup below the root, removed on drop.
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

fn error_chain(error: &dyn std::error::Error) -> String {
    match Error::kernel("", error) {
        Error::Kernel { reason, .. } => reason,
        other => other.to_string(),
    }
}
