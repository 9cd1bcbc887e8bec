//! Points in time in Marathon's form: UTC, milliseconds, `2020-05-01T10:00:00.123Z`. No clock in here.

use std::fmt;

use serde::{Serialize, Serializer};

/// Milliseconds since 1970. Versions of apps are timestamps, so their order is the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The start of a cluster's time by default: 2020-05-01T10:00:00.000Z.
    pub const EPOCH: Self = Self(1_588_327_200_000);

    /// The last one with a year of four digits.
    const END: Self = Self(253_402_300_799_999);

    /// The timestamp of this many milliseconds since 1970, at most the end of the year 9999.
    pub const fn from_millis(millis: u64) -> Self {
        if millis < Self::END.0 { Self(millis) } else { Self::END }
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// The next timestamp that differs from this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::from_millis(self.0 + 1)
    }
}

impl Timestamp {
    /// Formatted by hand, because a listing of 20 000 tasks has 100 000 timestamps: `format!` took a third of its time.
    fn written(self) -> [u8; 24] {
        let (seconds, millis) = (self.0 / 1000, self.0 % 1000);
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let fields = [(3, year), (6, month), (9, day), (12, hour), (15, minute), (18, second), (22, millis)];
        for (last, mut value) in fields {
            for digit in text[..=last].iter_mut().rev().take_while(|byte| byte.is_ascii_digit()) {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        }
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.written()).unwrap_or_default())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(str::from_utf8(&self.written()).unwrap_or_default())
    }
}

/// Year, month and day of a day counted from 1970 (Howard Hinnant's `civil_from_days`, for days that are not negative).
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // counted from 0000-03-01, so that the leap day ends the year
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + (month <= 2) as u64, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_format_equals_marathons() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_007, "2000-02-29T00:00:00.007Z"),
            (1_583_020_799_999, "2020-02-29T23:59:59.999Z"),
            (1_583_020_800_000, "2020-03-01T00:00:00.000Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).to_string(), text);
        }
        assert_eq!(Timestamp::EPOCH.to_string(), "2020-05-01T10:00:00.000Z");
    }
}
