//! Values of the keys that nothing in this version uses: what is good is told from what is not all the same.

use std::{net::IpAddr, time::Duration};

const UNSUPPORTED: &str = "is not supported by this version";
const POLICIES: [&str; 6] = ["leastconn", "random", "roundrobin", "source", "latency", "maglev"];

/// `Ok` where the value asks for what is done anyway; else one sentence that says why it is not followed.
pub(super) fn check(key: &str, value: &str) -> Result<(), String> {
    let (good, done, must) = match key {
        "mode" => {
            let http = "connections are forwarded as plain TCP, without a look at the HTTP in them";
            return match value {
                "tcp" => Ok(()),
                "http" => Err(http.into()),
                _ => Err("must be tcp or http; tcp is used".into()),
            };
        }
        "timeout.client" | "timeout.server" | "timeout.connect" | "slowstart" => {
            (duration(value).is_some_and(|it| !it.is_zero()), false, "a duration above 0 such as 500ms, 30s or 5m")
        }
        "affinity" => {
            let time = duration(value);
            (time.is_some(), time == Some(Duration::ZERO), "a duration such as 30s or 5m, or 0 for none")
        }
        "balance" => {
            let must = "one of leastconn, random, roundrobin, source, latency and maglev";
            (POLICIES.contains(&value), value == POLICIES[0], must)
        }
        "allow" => {
            let must = "addresses and networks such as 10.0.0.0/8, with commas between";
            (value.split(',').all(|part| is_network(part.trim())), false, must)
        }
        "on-backend-removed" => (matches!(value, "keep" | "reset"), value == "keep", "keep or reset"),
        "expose" => (matches!(value, "true" | "false"), value == "false", "true or false"),
        _ => return Err(UNSUPPORTED.into()),
    };
    match (good, done) {
        (false, _) => Err(format!("must be {must}; it is left out")),
        (true, false) => Err(UNSUPPORTED.into()),
        (true, true) => Ok(()),
    }
}

/// A duration as HAProxy writes it: a number and `us`, `ms`, `s`, `m`, `h` or `d`; milliseconds without a unit.
fn duration(value: &str) -> Option<Duration> {
    let digits = value.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let micros = match unit {
        "us" => 1,
        "" | "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    Some(Duration::from_micros(number.parse::<u64>().ok()?.checked_mul(micros)?))
}

/// Whether that is an address, or one with the length of a prefix that its family can have.
fn is_network(text: &str) -> bool {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let most: u8 = if address.is_ipv4() { 32 } else { 128 };
    length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_haproxy() {
        for (text, millis) in [
            ("3s", Some(3_000)),
            ("250", Some(250)),
            ("1000us", Some(1)),
            ("5m", Some(300_000)),
            ("2h", Some(7_200_000)),
            ("1d", Some(86_400_000)),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("3 s", None),
            ("3S", None),
            ("99999999999999999999", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn every_key_has_values_that_are_good_and_values_that_are_bad() {
        for (key, done, known, bad) in [
            ("mode", "tcp", "http", "smtp"),
            ("timeout.client", "", "30s", "soon"),
            ("timeout.server", "", "500", "0"),
            ("timeout.connect", "", "250ms", "-1s"),
            ("slowstart", "", "1m", "0s"),
            ("affinity", "0", "30m", "client"),
            ("balance", "leastconn", "maglev", "leastcon"),
            ("allow", "", "10.0.0.0/8, 192.0.2.7,fd00::/8", "10.0.0.0/33"),
            ("allow", "", "0.0.0.0/0", "10.0.0.0/8,"),
            ("on-backend-removed", "keep", "reset", "drop"),
            ("expose", "false", "true", "yes"),
        ] {
            assert!(done.is_empty() || check(key, done).is_ok(), "{key}={done}");
            let says = check(key, known).unwrap_err();
            assert!(key == "mode" || says == UNSUPPORTED, "{key}={known}: {says}");
            let says = check(key, bad).unwrap_err();
            assert!(says.starts_with("must be "), "{key}={bad}: {says}");
        }
        for policy in POLICIES {
            assert_eq!(check("balance", policy).is_ok(), policy == "leastconn");
        }
    }
}
