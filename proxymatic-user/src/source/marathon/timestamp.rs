//! The timestamps of Marathon: `2020-05-01T10:00:04.500Z`, in UTC, with a fraction of up to nine digits; and those of HTTP:
//! `Fri, 01 May 2020 10:00:04 GMT`. Pure and total.

/// Returns the milliseconds since 1970 of a timestamp in UTC; `None` if the text is no such timestamp.
pub(super) fn millis(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let date = numbers(date, '-')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(seconds(date, numbers(time, ':')?)? * 1000 + fraction)
}

/// Returns the milliseconds since 1970 of a header `Date` (RFC 9110, IMF-fixdate); `None` if the text is no such date.
pub(super) fn http_date_millis(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<_> = text.strip_suffix(" GMT")?.split_once(", ")?.1.split(' ').collect();
    let [day, month, year, time] = parts[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    Some(seconds(numbers(&format!("{year}-{month}-{day}"), '-')?, numbers(time, ':')?)? * 1000)
}

/// Returns the seconds since 1970 of a year, month and day, and an hour, minute and second.
fn seconds([year, month, day]: [i64; 3], [hour, minute, second]: [i64; 3]) -> Option<i64> {
    if !(1..=12).contains(&month) {
        return None;
    }
    // Howard Hinnant's days_from_civil: a year that begins in March has its leap day at the end.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Returns three numbers of at most four digits.
fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let number = |part: &str| {
        let short = (1..=4).contains(&part.len()) && part.bytes().all(|digit| digit.is_ascii_digit());
        short.then(|| part.parse().ok()).flatten()
    };
    let mut parts = text.split(separator).map(number);
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_have_the_milliseconds_of_date() {
        // date -u -d 2026-11-30T03:29:03.462Z +%s%3N
        for (text, expected) in [
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-30T03:29:03.462Z", Some(1_796_009_343_462)),
            ("2026-11-30T03:29:03.462507579Z", Some(1_796_009_343_462)),
            ("2026-11-30T03:29:03.4Z", Some(1_796_009_343_400)),
            ("2024-02-29T23:59:59.999Z", Some(1_709_251_199_999)),
            ("2026-11-30T03:29:03.462+01:00", None),
            ("2026-13-30T03:29:03.462Z", None),
            ("2026-11-30", None),
            ("", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
    }

    #[test]
    fn http_dates_have_the_milliseconds_of_date() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Mon, 30 Nov 2026 03:29:03 GMT", Some(1_796_009_343_000)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199_000)),
            ("Mon, 30 Nov 2026 03:29:03 UTC", None),
            ("Monday, 30-Nov-26 03:29:03 GMT", None),
            ("Mon, 30 Non 2026 03:29:03 GMT", None),
            ("", None),
        ] {
            assert_eq!(http_date_millis(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text in any::<String>(), near in "[0-9]{1,6}-[0-9]{1,6}-[0-9]{1,6}T[0-9:.]{0,30}Z") {
            millis(&text);
            millis(&near);
            http_date_millis(&text);
        }
    }
}
