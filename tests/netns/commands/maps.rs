//! `map show`, and each map of `map dump`.

use expect_test::expect;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;

use super::quiet;
use crate::golden::Command;

#[test]
fn map_output_matches_golden() -> TestResult {
    let lab = Lab::start(2)?;
    let (_cluster, _client) = quiet(&lab)?;
    Command::well(&["map", "show"], &["ID", "ENTRIES"], &["id", "pin", "entries"]).prints(
        &lab,
        &expect![[r#"
            MAP  ID  KIND  KEY  VALUE  ENTRIES  USED
            CONFIG  *  array  4  72  *  1
            PORTS  *  array  4  8  *  1
            ADDRESSES  *  hash  16  4  *  2
            FRONTENDS  *  hash  8  4  *  1
            SLOT_RANGES  *  array  4  8  *  1
            SERVICES  *  array  4  64  *  1
            SERVICE_STATS  *  array  4  128  *  -
            SLOTS  *  array  4  8  *  3
            BACKENDS  *  array  4  64  *  2
            BACKEND_STATS  *  array  4  128  *  -
            SOCKETS  *  sk_storage  4  400  *  -
            AFFINITY  *  lru_hash  24  16  *  0
            SOURCE_RANGES  *  lpm_trie  24  4  *  0
            SOURCE_CGROUPS  *  hash  16  4  *  0
            EXCLUDED  *  hash  8  4  *  0
            EVENTS  *  ringbuf  0  0  *  -
            COUNTERS  *  array  4  512  *  -
            CONNTRACK  *  lru_hash  40  80  *  0
            CT_HALF_OPEN  *  lru_hash  40  80  *  0
            CONNTRACK_LOCKS  *  array  4  4  *  -
            FRAGMENTS  *  lru_hash  40  16  *  0
            SCRATCH  *  percpu_array  4  512  *  -
            INTERFACES  *  hash  4  40  *  0
            REPLY_PORTS  *  array  4  64  *  -
            SERVICE_NAMES  *  hash  4  256  *  1
            DRAINED  *  hash  4  4  *  1
            BACKEND_NAMES  *  hash  4  256  *  2
        "#]],
        &expect![[r#"
            {"entries":"*","id":"*","key":4,"kind":"array","map":"CONFIG","pin":"*","used":1,"value":72}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"PORTS","pin":"*","used":1,"value":8}
            {"entries":"*","id":"*","key":16,"kind":"hash","map":"ADDRESSES","pin":"*","used":2,"value":4}
            {"entries":"*","id":"*","key":8,"kind":"hash","map":"FRONTENDS","pin":"*","used":1,"value":4}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"SLOT_RANGES","pin":"*","used":1,"value":8}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"SERVICES","pin":"*","used":1,"value":64}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"SERVICE_STATS","pin":"*","used":null,"value":128}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"SLOTS","pin":"*","used":3,"value":8}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"BACKENDS","pin":"*","used":2,"value":64}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"BACKEND_STATS","pin":"*","used":null,"value":128}
            {"entries":"*","id":"*","key":4,"kind":"sk_storage","map":"SOCKETS","pin":"*","used":null,"value":400}
            {"entries":"*","id":"*","key":24,"kind":"lru_hash","map":"AFFINITY","pin":"*","used":0,"value":16}
            {"entries":"*","id":"*","key":24,"kind":"lpm_trie","map":"SOURCE_RANGES","pin":"*","used":0,"value":4}
            {"entries":"*","id":"*","key":16,"kind":"hash","map":"SOURCE_CGROUPS","pin":"*","used":0,"value":4}
            {"entries":"*","id":"*","key":8,"kind":"hash","map":"EXCLUDED","pin":"*","used":0,"value":4}
            {"entries":"*","id":"*","key":0,"kind":"ringbuf","map":"EVENTS","pin":"*","used":null,"value":0}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"COUNTERS","pin":"*","used":null,"value":512}
            {"entries":"*","id":"*","key":40,"kind":"lru_hash","map":"CONNTRACK","pin":"*","used":0,"value":80}
            {"entries":"*","id":"*","key":40,"kind":"lru_hash","map":"CT_HALF_OPEN","pin":"*","used":0,"value":80}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"CONNTRACK_LOCKS","pin":"*","used":null,"value":4}
            {"entries":"*","id":"*","key":40,"kind":"lru_hash","map":"FRAGMENTS","pin":"*","used":0,"value":16}
            {"entries":"*","id":"*","key":4,"kind":"percpu_array","map":"SCRATCH","pin":"*","used":null,"value":512}
            {"entries":"*","id":"*","key":4,"kind":"hash","map":"INTERFACES","pin":"*","used":0,"value":40}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"REPLY_PORTS","pin":"*","used":null,"value":64}
            {"entries":"*","id":"*","key":4,"kind":"hash","map":"SERVICE_NAMES","pin":"*","used":1,"value":256}
            {"entries":"*","id":"*","key":4,"kind":"hash","map":"DRAINED","pin":"*","used":1,"value":4}
            {"entries":"*","id":"*","key":4,"kind":"hash","map":"BACKEND_NAMES","pin":"*","used":2,"value":256}
        "#]],
    )?;
    Command::well(&["map", "dump", "FRONTENDS"], &[], &[]).prints(
        &lab,
        &expect![[r#"
        CLASS  PORT  PROTOCOL  SERVICE  NAME
        1  1234  tcp  0  /web
    "#]],
        &expect![[r#"
        {"class":1,"name":"/web","port":1234,"protocol":"tcp","service":0}
    "#]],
    )?;
    Command::well(&["map", "dump", "backends"], &[], &[]).prints(&lab, &expect![[r#"
        BACKEND  AT  STATE  TOLD  GENERATION  WEIGHT  MAXCONN  LOCAL  SERVICE  NAME
        0  10.77.0.2:8001  active  active  1  500  0  no  0  /web
        1  10.77.0.2:8002  draining  active  1  500  0  no  0  /web
    "#]], &expect![[r#"
        {"at":"10.77.0.2:8001","backend":0,"generation":1,"local":false,"maxconn":0,"name":"/web","service":0,"state":"active","told":"active","weight":500}
        {"at":"10.77.0.2:8002","backend":1,"generation":1,"local":false,"maxconn":0,"name":"/web","service":0,"state":"draining","told":"active","weight":500}
    "#]])?;
    Command::well(&["map", "dump", "SERVICES"], &[], &[]).prints(&lab, &expect![[r#"
        SERVICE  SOURCE  POLICY  FEATURES  MAXCONN  AFFINITY_S  CONNECT_MS  CLIENT_MS  SERVER_MS  NAME
        0  marathon  leastconn  -  8192  0  3000  0  0  /web
    "#]], &expect![[r#"
        {"affinity_s":0,"client_ms":0,"connect_ms":3000,"features":"","maxconn":8192,"name":"/web","policy":"leastconn","server_ms":0,"service":0,"source":"marathon"}
    "#]])?;
    Command::well(&["map", "dump", "SLOT_RANGES"], &["GENERATION", "BASE"], &["generation", "base"]).prints(
        &lab,
        &expect![[r#"
            SERVICE  GENERATION  LENGTH  BASE  NAME
            0  *  1  *  /web
        "#]],
        &expect![[r#"
            {"base":"*","generation":"*","length":1,"name":"/web","service":0}
        "#]],
    )?;
    Command::well(&["map", "dump", "SLOTS"], &["SLOT"], &["slot"]).prints(
        &lab,
        &expect![[r#"
        SLOT  BACKEND  GENERATION  AT
        *  0  1  10.77.0.2:8001
        *  1  1  10.77.0.2:8002
        *  0  1  10.77.0.2:8001
    "#]],
        &expect![[r#"
        {"at":"10.77.0.2:8001","backend":0,"generation":1,"slot":"*"}
        {"at":"10.77.0.2:8002","backend":1,"generation":1,"slot":"*"}
        {"at":"10.77.0.2:8001","backend":0,"generation":1,"slot":"*"}
    "#]],
    )?;
    Command::well(&["map", "dump", "BACKEND_STATS"], &["RTT_US"], &["rtt_us"]).prints(&lab, &expect![[r#"
        BACKEND  OPENED  CLOSED  ACTIVE  ESTABLISHED  FAILED  CONSECUTIVE  EJECTED_MS  RTT_US  AT
        0  1  0  1  1  0  0  0  *  ..77.0.2:8001
        1  0  0  0  0  0  0  0  *  ..77.0.2:8002
    "#]], &expect![[r#"
        {"active":1,"at":"10.77.0.2:8001","backend":0,"closed":0,"consecutive":0,"ejected_ms":0,"established":1,"failed":0,"opened":1,"rtt_us":"*"}
        {"active":0,"at":"10.77.0.2:8002","backend":1,"closed":0,"consecutive":0,"ejected_ms":0,"established":0,"failed":0,"opened":0,"rtt_us":"*"}
    "#]])?;
    Command::well(&["map", "dump", "SERVICE_STATS"], &["BOUND", "UNHEARD"], &["bound", "unheard"]).prints(
        &lab,
        &expect![[r#"
            SERVICE  OPENED  CLOSED  ACTIVE  REFUSED  BOUND  UNHEARD  NAME
            0  1  0  1  0  *  *  /web
        "#]],
        &expect![[r#"
            {"active":1,"bound":"*","closed":0,"name":"/web","opened":1,"refused":0,"service":0,"unheard":"*"}
        "#]],
    )?;
    Command::well(&["map", "dump", "DRAINED"], &[], &[]).prints(
        &lab,
        &expect![[r#"
        BACKEND  GENERATION  AT
        1  1  10.77.0.2:8002
    "#]],
        &expect![[r#"
        {"at":"10.77.0.2:8002","backend":1,"generation":1}
    "#]],
    )?;
    Command::well(&["map", "dump", "PORTS"], &[], &[]).prints(
        &lab,
        &expect![[r#"
        PORT  PROTOCOL
        1234  tcp
    "#]],
        &expect![[r#"
        {"port":1234,"protocol":"tcp"}
    "#]],
    )?;
    Command::well(&["map", "dump", "SOCKETS"], &["LOCAL", "PID"], &["local", "pid"]).prints(
        &lab,
        &expect![[r#"
            PROTOCOL  LOCAL  DESTINATION  BACKEND_ADDRESS  BACKEND  GENERATION  COUNTED  PID
            tcp  *  127.0.0.1:1234  10.77.0.2:8001  0  1  yes  *
        "#]],
        &expect![[r#"
            {"backend":0,"backend_address":"10.77.0.2:8001","counted":true,"destination":"127.0.0.1:1234","generation":1,"local":"*","pid":"*","protocol":"tcp"}
        "#]],
    )?;
    Command::well(&["map", "dump", "SERVICE_NAMES"], &[], &[]).prints(
        &lab,
        &expect![[r#"
        ID  NAME
        0  /web
    "#]],
        &expect![[r#"
        {"id":0,"name":"/web"}
    "#]],
    )?;
    Command::well(&["map", "dump", "BACKEND_NAMES"], &["NAME"], &["name"]).prints(
        &lab,
        &expect![[r#"
        ID  NAME
        0  *
        1  *
    "#]],
        &expect![[r#"
        {"id":0,"name":"*"}
        {"id":1,"name":"*"}
    "#]],
    )?;
    Command::well(&["map", "dump", "CONFIG"], &["VALUE"], &["value"]).prints(
        &lab,
        &expect![[r#"
        FIELD  VALUE
        abi  *
        loopback  *
        host_netns  *
        cgroup  *
        heartbeat_s_ago  *
        synced_s_ago  *
        agent  *
        pid  *
        agent_tgid  *
        bypass_mark  *
        looks_for_listeners  *
        looks_for_excluded  *
        sample  *
        snat_first  *
        snat_last  *
    "#]],
        &expect![[r#"
        {"field":"abi","value":"*"}
        {"field":"loopback","value":"*"}
        {"field":"host_netns","value":"*"}
        {"field":"cgroup","value":"*"}
        {"field":"heartbeat_s_ago","value":"*"}
        {"field":"synced_s_ago","value":"*"}
        {"field":"agent","value":"*"}
        {"field":"pid","value":"*"}
        {"field":"agent_tgid","value":"*"}
        {"field":"bypass_mark","value":"*"}
        {"field":"looks_for_listeners","value":"*"}
        {"field":"looks_for_excluded","value":"*"}
        {"field":"sample","value":"*"}
        {"field":"snat_first","value":"*"}
        {"field":"snat_last","value":"*"}
    "#]],
    )?;
    Command::well(&["map", "dump", "COUNTERS"], &["COUNT"], &["count"]).prints(&lab, &expect![[r#"
        VERDICT  COUNT  MEANING
        no_backend  *  Refused: the service has no backend that this socket can reach
        backends_full  *  Refused: every backend that would do is at its maxconn
        service_full  *  ..ed: the service has as many connections from this host as it may have
        not_allowed  *  Refused: the allow list of the service does not name this client
        bound_loopback  *  ..socket is bound to a loopback address, and no backend is on this host
        translated  *  Sent to an eligible backend
        drained  *  Sent to a draining backend, because the service has no active one
        panic_mode  *  Sent to an ejected backend, because the service has no other
        affinity_hit  *  Sent to the backend of an earlier connection of this client
        udp_cached  *  A datagram was sent to the backend of the one before it
        no_socket_state  *  ..ket's state: not counted as open, and its peer name shows the backend
        reverse_translated  *  A peer name or a sender was given as what the program had dialled
        local_listener  *  Left alone: a program in this namespace listens on the port itself
        bypassed  *  .. is the agent's own, has the bypass mark, or is of an excluded cgroup
        port_bound  *  A program has bound a service port
        failed  *  A backend refused a connection or did not answer it
        abandoned  *  ..gave up a connection before the backend had answered, within a second
        ejected  *  A backend was ejected
        ejection_capped  *  A backend that failed was not ejected: half of its service is already
        stale_slot  *  A slot named a backend whose id has a new owner; another slot was tried
        stale_close  *  ..its backend's id had been given to another: the close was not counted
        event_dropped  *  An event was not told: the ring buffer is full, or nobody reads it
        forwarded  *  .. a client on another machine was sent to a backend on another machine
        forwarded_local  *  ..ion of a client on another machine was sent to a backend on this host
        forwarded_xdp  *  A packet was sent on by XDP, before the kernel had made anything of it
        not_exposed  *  ..ient on another machine dialled a service that is not exposed to such
        snat_ports_exhausted  *  ..ce port was free for a connection from another machine to its backend
        no_return_path  *  ..nd is by an interface that is not cluster, where no reply would be met
        no_route  *  ..lone or dropped: this host has no way to the backend or to the client
        conntrack_full  *  Left alone: no memory for a connection from another machine
        unknown_fragment  *  ..packet whose first one did not lead to a service, or has not come yet
        unreadable  *  ..lone: a packet with more headers than are read, or with less than one
        rewrite_failed  *  Dropped: the kernel had no memory to rewrite a packet
        mtu_exceeded  *  ..ger than the way to the other end allows: its sender was told by ICMP
        ttl_exceeded  *  A packet had no hops left: its sender was told by ICMP
        icmp_error_forwarded  *  ..rror about a connection from another machine was led to the other end
        snat_port_preempted  *  ..that was not open yet lost its source port to another: all were taken
    "#]], &expect![[r#"
        {"count":"*","meaning":"Refused: the service has no backend that this socket can reach","verdict":"no_backend"}
        {"count":"*","meaning":"Refused: every backend that would do is at its maxconn","verdict":"backends_full"}
        {"count":"*","meaning":"Refused: the service has as many connections from this host as it may have","verdict":"service_full"}
        {"count":"*","meaning":"Refused: the allow list of the service does not name this client","verdict":"not_allowed"}
        {"count":"*","meaning":"Refused: the socket is bound to a loopback address, and no backend is on this host","verdict":"bound_loopback"}
        {"count":"*","meaning":"Sent to an eligible backend","verdict":"translated"}
        {"count":"*","meaning":"Sent to a draining backend, because the service has no active one","verdict":"drained"}
        {"count":"*","meaning":"Sent to an ejected backend, because the service has no other","verdict":"panic_mode"}
        {"count":"*","meaning":"Sent to the backend of an earlier connection of this client","verdict":"affinity_hit"}
        {"count":"*","meaning":"A datagram was sent to the backend of the one before it","verdict":"udp_cached"}
        {"count":"*","meaning":"Sent to a backend, but the kernel had no memory for the socket's state: not counted as open, and its peer name shows the backend","verdict":"no_socket_state"}
        {"count":"*","meaning":"A peer name or a sender was given as what the program had dialled","verdict":"reverse_translated"}
        {"count":"*","meaning":"Left alone: a program in this namespace listens on the port itself","verdict":"local_listener"}
        {"count":"*","meaning":"Left alone: the socket is the agent's own, has the bypass mark, or is of an excluded cgroup","verdict":"bypassed"}
        {"count":"*","meaning":"A program has bound a service port","verdict":"port_bound"}
        {"count":"*","meaning":"A backend refused a connection or did not answer it","verdict":"failed"}
        {"count":"*","meaning":"A program gave up a connection before the backend had answered, within a second","verdict":"abandoned"}
        {"count":"*","meaning":"A backend was ejected","verdict":"ejected"}
        {"count":"*","meaning":"A backend that failed was not ejected: half of its service is already","verdict":"ejection_capped"}
        {"count":"*","meaning":"A slot named a backend whose id has a new owner; another slot was tried","verdict":"stale_slot"}
        {"count":"*","meaning":"A socket closed after its backend's id had been given to another: the close was not counted","verdict":"stale_close"}
        {"count":"*","meaning":"An event was not told: the ring buffer is full, or nobody reads it","verdict":"event_dropped"}
        {"count":"*","meaning":"A connection of a client on another machine was sent to a backend on another machine","verdict":"forwarded"}
        {"count":"*","meaning":"A connection of a client on another machine was sent to a backend on this host","verdict":"forwarded_local"}
        {"count":"*","meaning":"A packet was sent on by XDP, before the kernel had made anything of it","verdict":"forwarded_xdp"}
        {"count":"*","meaning":"Left alone: a client on another machine dialled a service that is not exposed to such","verdict":"not_exposed"}
        {"count":"*","meaning":"Left alone: no source port was free for a connection from another machine to its backend","verdict":"snat_ports_exhausted"}
        {"count":"*","meaning":"Left alone: the way to the backend is by an interface that is not served, where no reply would be met","verdict":"no_return_path"}
        {"count":"*","meaning":"Left alone or dropped: this host has no way to the backend or to the client","verdict":"no_route"}
        {"count":"*","meaning":"Left alone: no memory for a connection from another machine","verdict":"conntrack_full"}
        {"count":"*","meaning":"Left alone: a later fragment of a packet whose first one did not lead to a service, or has not come yet","verdict":"unknown_fragment"}
        {"count":"*","meaning":"Left alone: a packet with more headers than are read, or with less than one","verdict":"unreadable"}
        {"count":"*","meaning":"Dropped: the kernel had no memory to rewrite a packet","verdict":"rewrite_failed"}
        {"count":"*","meaning":"A packet was larger than the way to the other end allows: its sender was told by ICMP","verdict":"mtu_exceeded"}
        {"count":"*","meaning":"A packet had no hops left: its sender was told by ICMP","verdict":"ttl_exceeded"}
        {"count":"*","meaning":"An ICMP error about a connection from another machine was led to the other end","verdict":"icmp_error_forwarded"}
        {"count":"*","meaning":"A connection from another machine that was not open yet lost its source port to another: all were taken","verdict":"snat_port_preempted"}
    "#]])?;
    for map in ["AFFINITY", "SOURCE_RANGES", "SOURCE_CGROUPS", "EXCLUDED"] {
        Command::well(&["map", "dump", map], &[], &[]).prints(&lab, &expect!["no entries\n"], &expect![""])?;
    }
    Command::well(&["map", "dump", "ADDRESSES"], &["ADDRESS"], &["address"]).prints(
        &lab,
        &expect![[r#"
        ADDRESS  CLASS
        *  1
        *  1
    "#]],
        &expect![[r#"
        {"address":"*","class":1}
        {"address":"*","class":1}
    "#]],
    )?;
    Ok(())
}
