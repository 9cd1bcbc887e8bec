//! Arbitrary bytes as a response of Marathon: no panic, and any valid content can be planned.
//!
//! The response has the apps of `GET /v2/apps`, and in a field `pods` those of `GET /v2/pods/::status`.
#![no_main]

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use libfuzzer_sys::fuzz_target;
use proxymatic_common::SourceCode;
use proxymatic_fuzz::{addresses, plan_whole};
use proxymatic_user::source::marathon::{
    api::Lenient,
    convert,
    lookups::{Lookups, Options},
};

fuzz_target!(|body: &[u8]| {
    let Ok(mut listing) = convert::parse(body) else { return };
    if let Ok(whole) = serde_json::from_slice::<serde_json::Value>(body)
        && let Some(pods) = whole.get("pods")
        && let Ok(pods) = convert::parse_pods(pods.to_string().as_bytes())
    {
        listing.pods = pods;
    }
    let required = convert::required_lookups(&listing);
    let hosts = addresses(required.hosts.iter().map(String::as_str));
    // An earlier definition is the one of any other app, or it is missing.
    let mut others = convert::parse(body).map(|listing| listing.apps).unwrap_or_default().into_iter().rev();
    let definition = |version| match others.next() {
        Some(Lenient::Good(app)) => (version, Ok(Arc::new(app))),
        Some(Lenient::Bad { .. }) | None => (version, Err("no such version".to_owned())),
    };
    let definitions = required.definitions.into_iter().map(definition).collect();
    let pods: BTreeMap<_, _> =
        required.pods.into_iter().map(|version| (version, Err("no such version".to_owned()))).collect();
    let lookups = Lookups { definitions, pods, hosts, ..Lookups::default() };
    for expose_host in [false, true] {
        let options = Options { expose_host, ..NonZeroU32::MIN.into() };
        plan_whole(convert::convert(&listing, &lookups, &options), SourceCode::MARATHON);
    }
});
