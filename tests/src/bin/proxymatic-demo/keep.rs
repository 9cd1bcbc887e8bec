//! Commands to try in a demo that keeps running, and how to stop it.

use proxymatic_tests::lab::binary;

use crate::cluster::{APP, Cluster, URL};

pub(crate) fn print(cluster: &Cluster<'_>) {
    let host = cluster.lab.host(1);
    let net = host.net().path();
    let net = net.display();
    let program = |name| binary(name).map_or_else(|_| name.to_owned(), |path| path.display().to_string());
    let proxymatic =
        format!("{} --bpffs {} --socket {}", program("proxymatic"), host.pins().display(), host.socket().display());
    let replica = program("replica");
    let marathon = cluster.lab.marathon_url();
    let task = cluster.members.values().next_back().map_or("ID", |member| &member.task);
    println!(
        "
Everything keeps running. To look around, open a second terminal as root.

A shell on host 1, in its network namespace and in its cgroup:
   nsenter --net={net} sh -c 'echo $$ > {cgroup}/cgroup.procs; exec bash'

In that shell, a client through the service port:
   curl {URL}
What the agent and the kernel know:
   p='{proxymatic}'
   $p status
   $p service show
   $p flow show
   $p top
   $p event watch
   $p backend drain 10.77.0.1:8001
   $p help
   curl http://10.77.0.1:9090/metrics
End a task the Mesos way (TASK_KILLING, then TASK_KILLED):
   curl --json '{{\"task\": \"{task}\", \"state\": \"TASK_KILLING\"}}' {marathon}/sim/state
One more replica: its process, then its task:
   {replica} --listen 10.77.0.1:8007 --name g &
   curl --json '{{\"app\": \"{APP}\", \"host\": \"10.77.0.1\", \"port\": 8007}}' {marathon}/sim/tasks

Ctrl-C here ends it all, that shell included, and removes every trace.",
        cgroup = host.cgroup().path().display(),
    );
}
