//! The acts of the demo, in order. Each announces what it shows, does it, and checks it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use proxymatic_tests::lab::{Load, PATIENCE};
use proxymatic_tests::summary::Summary;

use crate::cluster::{Cluster, SERVICE_PORT, URL};
use crate::stage::Stage;

/// Requests that must succeed before, during and after each disturbance.
const SOME: u64 = 500;

pub(crate) fn the_cluster(cluster: &mut Cluster<'_>, stage: &mut Stage) -> Result<()> {
    stage.act("Three hosts, one application", "Network namespaces of this machine stand for the hosts of a cluster.");
    stage.say(
        "host 1  10.77.0.1  Marathon (simulated), replica a on port 8001, the agent, the client\n\
         host 2  10.77.0.2  replica b on port 8002\n\
         host 3  10.77.0.3  replica c on port 8003\n\
         Marathon says: app /demo/web, service port 1234. No process listens on port 1234 anywhere.",
    );
    cluster.deploy(&[("a", 1, 8001), ("b", 2, 8002), ("c", 3, 8003)])?;
    let begun = Instant::now();
    cluster.start_agent()?;
    let web = cluster.all_active()?;
    let what = format!("{} ms after its start the agent serves all three replicas", begun.elapsed().as_millis());
    stage.check(&what, web.port == SERVICE_PORT && web.backends.len() == 3, format_args!("{web:?}"))
}

pub(crate) fn fifty_connections(cluster: &Cluster<'_>, stage: &mut Stage) -> Result<()> {
    stage.act(
        &format!("A client opens {URL} fifty times"),
        "The kernel swaps the destination for a replica inside connect(2). From then on the socket talks\n\
         to that replica directly: no proxy process, no second connection, no copy.",
    );
    let seen = cluster.ask(50)?;
    stage.answers(&seen);
    stage.none_failed(&seen)?;
    only_these_answer(cluster, stage, &seen)?;
    let destination = ([127, 0, 0, 1], SERVICE_PORT).into();
    let unchanged = seen.peer.len() == 1 && seen.peer.contains_key(&destination);
    stage.check(
        &format!("getpeername(2) returns {destination} every time"),
        unchanged,
        format_args!("{:?}", seen.peer),
    )?;
    show(cluster, stage, &["service", "show"])
}

pub(crate) fn a_replica_is_killed_under_load(cluster: &mut Cluster<'_>, stage: &mut Stage) -> Result<()> {
    stage.act(
        "A replica is killed under load",
        "Mesos announces the end of replica b (TASK_KILLING), ends the process one second later and says\n\
         TASK_KILLED. The agent takes it out at the announcement; its open connections may finish.",
    );
    let load = load(cluster)?;
    let taken_out = cluster.kill("b")?;
    load.reaches(SOME)?;
    let seen = load.finish()?;
    stage.say(&format!("{} ms after the announcement replica b got no new connections", taken_out.as_millis()));
    stage.none_failed(&seen)?;
    let seen = cluster.ask(50)?;
    stage.answers(&seen);
    only_these_answer(cluster, stage, &seen)
}

pub(crate) fn five_replicas(cluster: &mut Cluster<'_>, stage: &mut Stage) -> Result<()> {
    stage.act("The app is scaled to five", "New replicas get connections as soon as Marathon calls them running.");
    let begun = Instant::now();
    for (name, host, port) in [("d", 2, 8004), ("e", 3, 8005), ("f", 1, 8006)] {
        cluster.scale(name, host, port)?;
    }
    cluster.all_active()?;
    stage.say(&format!("started and in the tables within {} ms", begun.elapsed().as_millis()));
    let seen = cluster.ask(100)?;
    stage.answers(&seen);
    stage.none_failed(&seen)?;
    only_these_answer(cluster, stage, &seen)
}

pub(crate) fn the_agent_crashes_under_load(cluster: &mut Cluster<'_>, stage: &mut Stage) -> Result<()> {
    stage.act(
        "The agent crashes under load and is started again",
        "Programs and tables live in the kernel, pinned. Without the agent traffic goes on; the new one\n\
         adopts what it finds and changes only what differs.",
    );
    let load = load(cluster)?;
    let agent = cluster.agent.as_mut().context("no agent")?;
    agent.kill9()?;
    let before = load.so_far()?;
    let after = load.reaches(SOME)?;
    stage.say(&format!("{} requests answered while no agent was running", after.ok - before.ok));
    let begun = Instant::now();
    cluster.start_agent()?;
    ready(cluster)?;
    stage.say(&format!("the new agent was ready after {} ms", begun.elapsed().as_millis()));
    load.reaches(SOME)?;
    // A later change of the services proves that the new agent has taken over.
    cluster.kill("f")?;
    stage.say("replica f is killed: the new agent takes it out");
    load.reaches(SOME)?;
    stage.none_failed(&load.finish()?)?;
    let seen = cluster.ask(100)?;
    stage.answers(&seen);
    only_these_answer(cluster, stage, &seen)
}

pub(crate) fn what_an_operator_sees(cluster: &Cluster<'_>, stage: &mut Stage) -> Result<()> {
    stage.act("What an operator sees", "Every reading verb works from the pins alone, agent or not.");
    show(cluster, stage, &["hook", "show"])?;
    show(cluster, stage, &["status"])
}

pub(crate) fn nothing_is_left(cluster: &mut Cluster<'_>, stage: &mut Stage) -> Result<()> {
    stage.act(
        "The agent stops, then everything is removed",
        "A stopped agent leaves the data plane in place, for the next one. `detach` removes what we pinned.",
    );
    let status = cluster.agent.as_mut().context("no agent")?.terminate(PATIENCE)?;
    stage.check("the agent stops when asked to (SIGTERM), exit status 0", status.success(), status)?;
    let seen = cluster.ask(50)?;
    stage.check("50 more connections are answered without it", seen.ok == 50, format_args!("{:?}", seen.errors))?;
    show(cluster, stage, &["detach"])?;
    let left: Vec<_> = fs::read_dir(cluster.lab.host(1).pins())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    stage.check("no pin is left on the bpf filesystem", left.is_empty(), format_args!("{left:?}"))?;
    let seen = cluster.ask(5)?;
    let refused = seen.errors.get("ECONNREFUSED") == Some(&5);
    stage.check("port 1234 is an ordinary closed port again", refused, format_args!("{seen:?}"))
}

/// Starts constant load that has already had successful requests.
fn load(cluster: &Cluster<'_>) -> Result<Load> {
    let load = cluster.lab.load(URL, &["--threads", "2"])?;
    load.reaches(SOME)?;
    Ok(load)
}

/// Waits until the agent reports that it has all sources and has applied them.
fn ready(cluster: &Cluster<'_>) -> Result<()> {
    cluster.lab.host(1).agent_ready(Duration::from_secs(10))
}

fn only_these_answer(cluster: &Cluster<'_>, stage: &mut Stage, seen: &Summary) -> Result<()> {
    let (running, answered) = (cluster.names(), seen.by_replica.keys().collect::<Vec<_>>());
    let what = format!("replicas {} answer, and no other", running.join(", "));
    stage.check(&what, answered == running, format_args!("answers came from {answered:?}"))
}

fn show(cluster: &Cluster<'_>, stage: &mut Stage, arguments: &[&str]) -> Result<()> {
    let left = cluster.lab.proxymatic(arguments)?;
    let command = format!("proxymatic {}", arguments.join(" "));
    stage.ran(&command, &left);
    stage.check(&format!("`{command}` finds all well"), left.status.success(), left.status)
}
