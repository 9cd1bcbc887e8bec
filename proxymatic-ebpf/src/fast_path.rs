//! The journey of one packet at the XDP hook.

use proxymatic_common::{CtFlags, Reason};

use crate::{
    conntrack::state::fast_path_ok,
    data_plane::{Conntrack, PacketHook},
    packet::{self, L4Header},
    packet_ctx::{PacketCtx, Route},
    pipeline::{Action, finish, is_snat_port},
    route::is_service_port,
};

/// Forwards a packet of an established connection that has no IP options and no SYN, FIN or RST. All other packets pass
/// on to TC, and so does one packet per second and direction, for which TC updates the entries.
#[inline(always)]
pub fn fast_path<T: Conntrack, H: PacketHook>(tables: &T, hook: &mut H, ctx: &mut PacketCtx) -> Action {
    match packet::is_v4(hook) {
        Some(true) => fast_path_of_family::<T, H, true>(tables, hook, ctx),
        Some(false) => fast_path_of_family::<T, H, false>(tables, hook, ctx),
        None => Action::Pass,
    }
}

#[inline(always)]
fn fast_path_of_family<T: Conntrack, H: PacketHook, const V4: bool>(
    tables: &T,
    hook: &mut H,
    ctx: &mut PacketCtx,
) -> Action {
    // On the stack and not in the context, so that the compiler knows the offsets to be constants.
    let mut header = L4Header::NONE;
    let Some(config) = tables.config() else { return Action::Pass };
    if config.snat_last == 0 || !packet::read_plain::<H, V4>(hook, &mut header) {
        return Action::Pass;
    }
    let network = &header.network;
    if header.flags.changes_state()
        || network.ttl <= 1
        || !(is_snat_port(config, &header) || is_service_port(tables, header.destination_port, network.protocol))
    {
        return Action::Pass;
    }
    ctx.key = header.tuple();
    let Some(entry) = tables.established_entry(&ctx.key) else { return Action::Pass };
    if entry.flags.has(CtFlags::LOCAL_BACKEND) || !fast_path_ok(tables, entry) {
        return Action::Pass;
    }
    ctx.translated = entry.translated;
    let Route::Via(_) = hook.fib_lookup(network, &ctx.translated) else { return Action::Pass };
    tables.count(Reason::ForwardedXdp);
    let rewritten = packet::rewrite(hook, &header, &ctx.translated);
    finish(tables, hook, network, false, rewritten)
}
