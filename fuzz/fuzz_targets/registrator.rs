//! Arbitrary bytes as a response of etcd, and arbitrary keys and values: no panic, and any valid content can be planned.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxymatic_common::SourceCode;
use proxymatic_fuzz::{addresses, plan_whole};
use proxymatic_user::source::registrator::{
    convert::{convert, host_names},
    wire::{Entry, v2_entries, v3_changed, v3_entries},
};

fuzz_target!(|input: (Vec<(String, String)>, &[u8])| {
    let (pairs, body) = input;
    let _ = v3_changed(body);
    let made = pairs.into_iter().map(|(key, value)| Entry { key: format!("/services/{key}"), value }).collect();
    let answered = v2_entries(body).ok().into_iter().chain(v3_entries(body).ok().map(|(entries, _)| entries));
    for entries in answered.chain([made]) {
        let hosts = addresses(host_names(&entries));
        for expose_host in [false, true] {
            plan_whole(convert(&entries, "/services", &hosts, expose_host), SourceCode::REGISTRATOR);
        }
    }
});
