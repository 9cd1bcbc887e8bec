//! What needs namespaces, cgroups and real connections. One module per thing it proves; all need root.

/// The addresses of the host come and go.
mod addresses;
/// A client stays with its backend.
mod affinity;
/// Who may connect.
mod allow;
/// Services whose replicas answer with one word.
mod answered;
/// How connections are shared.
mod balance;
/// How many connections there may be at once.
mod bounds;
/// What the kernel itself says, asked with a tool that knows nothing of us.
mod bpftool;
/// Whose connections are left alone.
mod bypassed;
/// Connects that are not made by connect(2) alone.
mod calls;
/// Pins that cannot be made, locks that were left, maps that are too small.
mod cannot_pin;
/// Which cgroup is taken for the host's root.
mod cgroup_root;
/// What commands print.
mod commands;
/// One connection: which destinations lead to a service, and what a program sees of it afterwards.
mod connect;
/// The agent in a container, with a cgroup namespace of its own.
mod contained;
/// `detach` removes exactly what was put there.
mod detach;
/// What the documents show was printed by the program.
mod documents;
/// What the operator drains.
mod drained;
/// Who gets connections, by state and health of the tasks.
mod eligible;
/// The status endpoint.
mod endpoint;
/// What happens, as it happens.
mod events;
/// Replicas that die or fall silent under steady load.
mod failing;
/// What this kernel has.
mod feature;
/// Output that is compared word by word.
mod golden;
/// The harness itself: hosts reach each other, and nothing stays behind whatever happens.
mod harness;
/// A host that lacks something.
mod host;
/// One UDP socket and several services.
mod in_flight;
/// Hooks on network interfaces.
mod interfaces;
/// What the agent does about clients on other machines.
mod interfaces_served;
/// What the kernel has, and what it takes to verify the programs.
mod kernel;
/// Starts that are killed, and what they leave.
mod killed_start;
/// Which backends are better than none.
mod last_resort;
/// The nearer replica.
mod latency;
/// `maxconn`.
mod limits;
/// Programs that listen on a service port themselves.
mod listeners;
/// What the hooks log where they are asked to.
mod logged;
/// A hash of the client.
mod maglev;
/// Marathon is not there.
mod marathon;
/// Every kind of socket to every kind of service.
mod matrix;
/// The agent killed before each of its writes.
mod mortal;
/// The agent started for another cgroup.
mod moved;
/// Packets of clients on other machines, one by one: BPF_PROG_TEST_RUN.
mod packets;
/// `plan show` against what is pinned.
mod plan_show;
/// What the agent may still do.
mod privileges;
/// Replicas that fail are probed until they answer.
mod probes;
/// Real programs, unmodified.
mod programs;
/// TCP and UDP on one port number.
mod protocols;
/// A boot without Marathon: the state file.
mod rebooted;
/// Keys in a real etcd.
mod registrator;
/// Clients on other hosts.
mod remote;
/// All backends replaced at once, a thousand times.
mod replace;
/// The agent dies and comes back.
mod restart;
/// All replicas replaced one by one.
mod rolling;
/// A second agent on the same pins.
mod second;
/// The agent finds out by itself whether services are reached.
mod self_test;
/// What most tests begin with.
mod served;
/// Who gets how many: weights and least connections.
mod shares;
/// Random changes under load.
mod soak;
/// What programs do with sockets besides connecting and closing once.
mod sockets;
/// Counts that are wrong are corrected.
mod sockets_drift;
/// Sockets of a backend that is gone.
mod sockets_gone;
/// Connections that are idle for too long.
mod sockets_idle;
/// Marathon goes wrong in every way it is known to, under load.
mod steady;
/// The kernel is asked for listeners only where there may be one.
mod unheard;
/// Another build of the agent, of the same or of another version of the layouts, takes over.
mod upgrade;
/// The script that proves a cluster of virtual machines.
mod vagrant;
/// Addresses that no interface has.
mod virtual_addresses;
/// What on a host is in the way.
mod warned;
/// Services written down in a file.
mod written;
