//! What needs namespaces, cgroups and real connections. One module per thing it proves; all need root.

/// What the kernel itself says, asked with a tool that knows nothing of us.
mod bpftool;
/// One connection: which destinations lead to a service, and what a program sees of it afterwards.
mod connect;
/// `detach` removes exactly what was put there.
mod detach;
/// Who gets connections, by state and health of the tasks.
mod eligible;
/// The harness itself: hosts reach each other, and nothing stays behind whatever happens.
mod harness;
/// A host that lacks something.
mod host;
/// `maxconn`.
mod limits;
/// Marathon is not there.
mod marathon;
/// The agent started for another cgroup.
mod moved;
/// `plan show` against what is pinned.
mod plan_show;
/// All backends replaced at once, a thousand times.
mod replace;
/// The agent dies and comes back.
mod restart;
/// A second agent on the same pins.
mod second;
/// What most tests begin with.
mod served;
/// Who gets how many: weights and least connections.
mod shares;
/// What programs do with sockets besides connecting and closing once.
mod sockets;
/// Marathon goes wrong in every way it is known to, under load.
mod steady;
