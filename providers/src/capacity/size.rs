//! Numbers of bytes for people.

/// What is there, in bytes, for people; cut, so that it never looks like more than it is.
pub fn size(bytes: u64) -> String {
    tenths(bytes, 0)
}

/// What is needed, in bytes, for people; rounded up, so that what is short never looks like enough.
pub fn size_needed(bytes: u64) -> String {
    tenths(bytes, 1)
}

/// In GiB with one decimal, or in whole MiB or KiB; `up` is 1 to round up.
fn tenths(bytes: u64, up: u128) -> String {
    const KIB: u128 = 1 << 10;
    const MIB: u128 = 1 << 20;
    const GIB: u128 = 1 << 30;
    let bytes = u128::from(bytes);
    let parts = |unit: u128| (bytes + up * (unit - 1)) / unit;
    if bytes >= GIB {
        let tenths = (bytes * 10 + up * (GIB - 1)) / GIB;
        format!("{}.{} GiB", tenths / 10, tenths % 10)
    } else if bytes >= MIB {
        format!("{} MiB", parts(MIB))
    } else {
        format!("{} KiB", parts(KIB))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_cut_and_what_is_needed_is_rounded_up() {
        let cases = [
            (0, "0 KiB", "0 KiB"),
            ((1 << 20) - 1, "1023 KiB", "1024 KiB"),
            (1 << 20, "1 MiB", "1 MiB"),
            ((1 << 30) - 1, "1023 MiB", "1024 MiB"),
            (1 << 30, "1.0 GiB", "1.0 GiB"),
            ((64 << 30) + (160 << 20), "64.1 GiB", "64.2 GiB"),
            (u64::MAX, "17179869183.9 GiB", "17179869184.0 GiB"),
        ];
        for (bytes, there, needed) in cases {
            assert_eq!((size(bytes), size_needed(bytes)), (there.to_owned(), needed.to_owned()));
        }
    }
}
