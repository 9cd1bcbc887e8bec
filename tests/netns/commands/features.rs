//! `feature probe`.

use anyhow::Context as _;
use expect_test::expect;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use serde_json::Value;

use crate::golden::Command;

#[test]
fn feature_probe_output_matches_golden() -> TestResult {
    let lab = Lab::start(1)?;
    // Whether this kernel has the feature is the matter of module `feature_probe`.
    let asked = ["feature", "probe"];
    Command::well(&asked, &["HAS", "DETAIL"], &[]).prints_table(
        &lab,
        &expect![[r#"
        FEATURE  HAS  NEEDED  DETAIL
        hooks of connect  *  yes  *
        hooks of getpeername  *  yes  *
        hooks of sendmsg  *  yes  *
        hooks of recvmsg  *  yes  *
        hook of close (sock_release)  *  yes  *
        hooks of bind (post_bind)  *  yes  *
        hook of TCP states (sock_ops)  *  yes  *
        state of sockets (sk_storage) in connect  *  yes  *
        state of sockets (sk_storage) in close  *  yes  *
        state of sockets (sk_storage) in TCP states  *  yes  *
        events (ring buffer)  *  yes  *
        namespaces told apart (netns cookie) by hooks  *  yes  *
        listeners (sk_lookup)  *  yes  *
        cgroups of programs (cgroup id)  *  yes  *
        timeout.connect (setsockopt TCP_SYNCNT)  *  yes  *
        links to cgroups  *  yes  *
        programs replaced behind links  *  yes  *
        the host's root of cgroups  *  no  *
        the host's namespace (SO_NETNS_COOKIE)  *  no  *
        errors of refusals (set_retval)  *  no  *
        MPTCP  *  no  *
        UDP sockets ended (SOCK_DESTROY)  *  no  *
        TCP connections ended (SOCK_DESTROY)  *  no  *
        copies of sockets (pidfd_getfd)  *  no  *
        memory of maps by cgroup  *  no  *
        run times (bpf_stats)  *  no  *
        links to interfaces (tcx)  *  no  *
    "#]],
    )?;
    let mut rows: Vec<Value> = serde_json::from_str(&lab.proxymatic(&[&["-j"], &asked[..]].concat())?.well()?.stdout)?;
    for row in &mut rows {
        for key in ["has", "found", "instead", "reason"] {
            *row.get_mut(key).with_context(|| format!("no {key}"))? = "*".into();
        }
    }
    expect![[r#"
        {"feature":"hooks of connect","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"hooks of getpeername","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"hooks of sendmsg","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"hooks of recvmsg","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"hook of close (sock_release)","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"hooks of bind (post_bind)","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"hook of TCP states (sock_ops)","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"state of sockets (sk_storage) in connect","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"state of sockets (sk_storage) in close","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"state of sockets (sk_storage) in TCP states","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"events (ring buffer)","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"namespaces told apart (netns cookie) by hooks","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"listeners (sk_lookup)","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"cgroups of programs (cgroup id)","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"timeout.connect (setsockopt TCP_SYNCNT)","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"links to cgroups","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"programs replaced behind links","found":"*","has":"*","instead":"*","needed":true,"reason":"*"}
        {"feature":"the host's root of cgroups","found":"*","has":"*","instead":"*","needed":false,"reason":"*"}
        {"feature":"the host's namespace (SO_NETNS_COOKIE)","found":"*","has":"*","instead":"*","needed":false,"reason":"*"}
        {"feature":"errors of refusals (set_retval)","found":"*","has":"*","instead":"*","needed":false,"reason":"*"}
        {"feature":"MPTCP","found":"*","has":"*","instead":"*","needed":false,"reason":"*"}
        {"feature":"UDP sockets ended (SOCK_DESTROY)","found":"*","has":"*","instead":"*","needed":false,"reason":"*"}
        {"feature":"TCP connections ended (SOCK_DESTROY)","found":"*","has":"*","instead":"*","needed":false,"reason":"*"}
        {"feature":"copies of sockets (pidfd_getfd)","found":"*","has":"*","instead":"*","needed":false,"reason":"*"}
        {"feature":"memory of maps by cgroup","found":"*","has":"*","instead":"*","needed":false,"reason":"*"}
        {"feature":"run times (bpf_stats)","found":"*","has":"*","instead":"*","needed":false,"reason":"*"}
        {"feature":"links to interfaces (tcx)","found":"*","has":"*","instead":"*","needed":false,"reason":"*"}
    "#]].assert_eq(&rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    Ok(())
}
