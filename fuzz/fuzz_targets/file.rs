//! Arbitrary bytes as a file of services: no panic, an error of one line, and any valid content can be planned.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxymatic_common::SourceCode;
use proxymatic_fuzz::{addresses, plan_whole};
use proxymatic_user::source::file::{Format, read::parse};

fuzz_target!(|content: &[u8]| {
    for format in [Format::Toml, Format::Json] {
        match parse(content, format) {
            Ok(listing) => plan_whole(listing.convert(&addresses(listing.host_names())), SourceCode::FILE),
            Err(reason) => assert_eq!(reason.lines().count(), 1, "{reason:?}"),
        }
    }
});
