//! The random changes. Each ends when the agent serves the new state, so that a failure has one cause.

use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use serde_json::json;

use super::allowed_failures::Killed;
use super::cluster::{CREW, Clients, Cluster, pass};
use super::replicas::{Member, now};
use super::report::Report;
use crate::stalls::Stalls;

/// The least number of replicas of a service, so that one can be killed.
const LEAST: usize = 2;
const MOST: usize = 7;
/// Requests that must be done while no agent runs.
const SOME: u64 = 20;

/// One change. A number is the index of a service.
///
/// An upgrade to a program of another ABI version is to become an act of its own beside [`Act::Upgrade`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    /// One or two more replicas.
    Grow(usize),
    /// One replica less, after a drain.
    Shrink(usize),
    /// A new replica, then an old one leaves, as in a rolling update.
    Roll(usize),
    /// All replicas replaced at once.
    Replace(usize),
    /// A replica crashes, and Marathon learns of it a little later.
    Kill(usize),
    /// No Marathon leads for some seconds.
    LoseLeader,
    /// No Marathon leads for some seconds, and a replica crashes meanwhile.
    LoseLeaderAndKill(usize),
    /// The event streams end.
    CutStreams,
    /// The agent is killed, and a replica starts before the next agent.
    Crash(usize),
    /// The agent is killed during a replacement.
    CrashWithin(usize),
    /// The agent is stopped, and another program takes over on the same pins.
    Upgrade,
}

/// Draws the next change.
pub(super) fn draw(rng: &mut Rng, cluster: &Cluster<'_>) -> Act {
    let of = rng.usize(..cluster.crews.len());
    let (members, tcp) = (cluster.crews[of].members.len(), !cluster.crews[of].udp);
    match rng.u64(..14) {
        0..2 if members < MOST => Act::Grow(of),
        2..4 if members > LEAST => Act::Shrink(of),
        0..5 => Act::Roll(of),
        5 => Act::Replace(of),
        6..9 if members > LEAST => Act::Kill(of),
        9 if members > LEAST && tcp => Act::LoseLeaderAndKill(of),
        9 => Act::LoseLeader,
        10 => Act::CutStreams,
        11 if members < MOST => Act::Crash(of),
        12 => Act::CrashWithin(of),
        13 => Act::Upgrade,
        _ => Act::Grow(of),
    }
}

impl Act {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Grow(_) => "scale up",
            Self::Shrink(_) => "scale down",
            Self::Roll(_) => "roll one",
            Self::Replace(_) => "replace all",
            Self::Kill(_) => "replica killed",
            Self::LoseLeader => "leader lost",
            Self::LoseLeaderAndKill(_) => "leader lost, replica killed",
            Self::CutStreams => "event streams cut",
            Self::Crash(_) => "agent killed",
            Self::CrashWithin(_) => "agent killed in a change",
            Self::Upgrade => "agent upgraded",
        }
    }

    pub(super) fn perform(
        self,
        cluster: &mut Cluster<'_>,
        rng: &mut Rng,
        clients: &Clients,
        report: &mut Report,
    ) -> Result<()> {
        match self {
            Self::Grow(of) => grow(cluster, of, 1 + rng.usize(..2)),
            Self::Shrink(of) => {
                let nth = rng.usize(..cluster.crews[of].members.len());
                shrink(cluster, of, nth, Some(clients), report)
            }
            Self::Roll(of) => {
                let nth = rng.usize(..cluster.crews[of].members.len());
                grow(cluster, of, 1)?;
                shrink(cluster, of, nth, Some(clients), report)
            }
            Self::Replace(of) => {
                let old = replace(cluster, of, report)?;
                cluster.settle_one(of)?;
                leave(cluster, of, old, Some(clients))
            }
            Self::Kill(of) => {
                let (told, nth) = (rng.u64(..500), rng.usize(..cluster.crews[of].members.len()));
                let killed = kill(cluster, of, nth, report)?;
                pass(Duration::from_millis(told));
                bury(cluster, of, killed, clients)
            }
            Self::LoseLeader => {
                cluster.sim.control("leader", &json!({ "seconds": 1 + rng.u64(..4), "code": 502 }))?;
                cluster.well()
            }
            Self::LoseLeaderAndKill(of) => {
                let nth = rng.usize(..cluster.crews[of].members.len());
                cluster.sim.control("leader", &json!({ "seconds": 1 + rng.u64(..4), "code": 502 }))?;
                let killed = kill(cluster, of, nth, report)?;
                bury(cluster, of, killed, clients)?;
                cluster.well()
            }
            Self::CutStreams => {
                cluster.sim.control("streams/close", &json!({}))?;
                cluster.well()
            }
            Self::Crash(of) => {
                cluster.kill_agent()?;
                launch(cluster, of, 1)?;
                clients.reach(SOME)?;
                cluster.start_agent()?;
                cluster.settle()
            }
            Self::CrashWithin(of) => {
                let after = rng.u64(..30);
                let old = replace(cluster, of, report)?;
                pass(Duration::from_millis(after));
                cluster.kill_agent()?;
                clients.reach(SOME)?;
                cluster.start_agent()?;
                cluster.settle()?;
                leave(cluster, of, old, Some(clients))
            }
            Self::Upgrade => {
                cluster.stop_agent()?;
                clients.reach(SOME)?;
                cluster.start_agent()?;
                cluster.settle()
            }
        }
    }
}

/// Restores the number of replicas of the beginning.
pub(super) fn restore_replicas(cluster: &mut Cluster<'_>, report: &mut Report) -> Result<()> {
    for of in 0..cluster.crews.len() {
        while cluster.crews[of].members.len() > CREW {
            shrink(cluster, of, 0, None, report)?;
        }
        let missing = CREW - cluster.crews[of].members.len();
        grow(cluster, of, missing)?;
    }
    cluster.settle()
}

/// Starts more replicas; returns when they are served.
fn grow(cluster: &mut Cluster<'_>, of: usize, count: usize) -> Result<()> {
    launch(cluster, of, count)?;
    cluster.settle_one(of)
}

fn launch(cluster: &mut Cluster<'_>, of: usize, count: usize) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let members = cluster.recruit(of, count)?;
    let places: Vec<_> = members.iter().map(Member::place).collect();
    let answer = cluster.sim.control("tasks", &json!({ "app": cluster.crews[of].app, "tasks": places }))?;
    cluster.crews[of].join(members, &answer["tasks"])
}

/// Stops a replica as Mesos does: TASK_KILLING, drain, end. A UDP replica runs until its sockets were reset.
fn shrink(
    cluster: &mut Cluster<'_>,
    of: usize,
    nth: usize,
    clients: Option<&Clients>,
    report: &mut Report,
) -> Result<()> {
    let member = cluster.crews[of].members.remove(nth);
    report.note(&format!("{} leaves", member.name));
    cluster.sim.state(&member.task, "TASK_KILLING")?;
    let (app, address) = (cluster.crews[of].app, member.address);
    cluster.lab.service_when(&format!("{} gets no more", member.name), app, |service| !service.is_active(address))?;
    let gone = cluster.crews[of].ended(member.name.clone(), None);
    cluster.note(gone);
    let task = member.task.clone();
    if cluster.crews[of].udp {
        cluster.sim.state(&task, "TASK_KILLED")?;
        cluster.settle_one(of)?;
        leave(cluster, of, vec![member], clients)
    } else {
        leave(cluster, of, vec![member], clients)?;
        cluster.sim.state(&task, "TASK_KILLED")?;
        cluster.settle_one(of)
    }
}

/// Replaces all replicas at once by new ones; returns the old ones, which still run.
fn replace(cluster: &mut Cluster<'_>, of: usize, report: &mut Report) -> Result<Vec<Member>> {
    let old = std::mem::take(&mut cluster.crews[of].members);
    report.note(&format!("{} of {} are replaced", old.len(), cluster.crews[of].app));
    for name in old.iter().map(|member| member.name.clone()) {
        let gone = cluster.crews[of].ended(name, None);
        cluster.note(gone);
    }
    let members = cluster.recruit(of, old.len())?;
    let places: Vec<_> = members.iter().map(Member::place).collect();
    let answer = cluster.sim.control("replace", &json!({ "app": cluster.crews[of].app, "tasks": places }))?;
    cluster.crews[of].join(members, &answer["tasks"])?;
    Ok(old)
}

/// Ends the processes of removed replicas, each when no client uses it any more.
fn leave(cluster: &Cluster<'_>, of: usize, members: Vec<Member>, clients: Option<&Clients>) -> Result<()> {
    for member in members {
        if !cluster.crews[of].udp {
            member.is_alone(cluster.lab)?;
        } else if let Some(clients) = clients {
            clients.leave_alone(cluster.crews[of].port, &member.name)?;
        }
        member.leave()?;
    }
    Ok(())
}

/// A replica that was killed, and the time.
struct Dead {
    name: String,
    task: String,
    when: (f64, f64),
    /// Since the kill.
    stalls: Stalls,
}

fn kill(cluster: &mut Cluster<'_>, of: usize, nth: usize, report: &mut Report) -> Result<Dead> {
    let member = cluster.crews[of].members.remove(nth);
    let (name, task) = (member.name.clone(), member.task.clone());
    report.note(&format!("{name} is killed"));
    let stalls = Stalls::watch();
    Ok(Dead { name, task, when: member.die()?, stalls })
}

/// Reports a replica's death to Marathon; returns when the agent knows it.
fn bury(cluster: &mut Cluster<'_>, of: usize, dead: Dead, clients: &Clients) -> Result<()> {
    cluster.sim.state(&dead.task, "TASK_FAILED")?;
    cluster.settle_one(of)?;
    if cluster.crews[of].udp {
        clients.leave_alone(cluster.crews[of].port, &dead.name)?;
    }
    let (begun, at) = dead.when;
    let killed = Killed { begun, dead: at, out: now(), stalled: dead.stalls.any_long() };
    let ended = cluster.crews[of].ended(dead.name, Some(killed));
    cluster.note(ended);
    Ok(())
}
