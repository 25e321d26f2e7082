//! Whole numbers, packed and unpacked by hand: no value is more common, and the general way takes
//! several times as long for the same bytes.

use std::any::Any;

/// Packs a value if its type is one of whole numbers; whether it is.
#[inline(always)]
pub(crate) fn pack<T: 'static>(out: &mut Vec<u8>, value: &T) -> bool {
    let value: &dyn Any = value;
    macro_rules! pack_one {
        ($form:ident: $($integer:ty)*) => {$(
            if let Some(&n) = value.downcast_ref::<$integer>() {
                append(out, $form(n.into()));
                return true;
            }
        )*};
    }
    pack_one!(signed: i8 i16 i32 i64);
    pack_one!(unsigned: u8 u16 u32 u64);
    false
}

/// Takes a whole number off the front of `input`, where `T` is of one and it is there. What is wrong
/// otherwise the general way tells.
#[inline]
pub(crate) fn unpack<T: 'static>(input: &mut &[u8]) -> Option<T> {
    let mut value: Option<T> = None;
    let any: &mut dyn Any = &mut value;
    macro_rules! unpack_one {
        ($read:ident: $($integer:ty)*) => {$(
            if let Some(value) = any.downcast_mut::<Option<$integer>>() {
                let (n, rest) = read(input)?;
                *value = Some(n.$read()?.try_into().ok()?);
                *input = rest;
            }
        )*};
    }
    unpack_one!(signed: i8 i16 i32 i64);
    unpack_one!(unsigned: u8 u16 u32 u64);
    value
}

/// A number's form: of nine bytes, the first eight in little-endian and the last, so many at the front.
/// In registers from end to end: bytes that are put together in memory have to be waited for.
struct Form {
    first: u64,
    last: u8,
    len: usize,
}

#[inline]
fn signed(n: i64) -> Form {
    match n {
        0.. => unsigned(n as u64),
        -0x20..=-1 => short(n as u8),
        -0x80..=-0x21 => form(0xd0, 1, n as u64),
        -0x8000..=-0x81 => form(0xd1, 2, n as u64),
        -0x8000_0000..=-0x8001 => form(0xd2, 4, n as u64),
        _ => form(0xd3, 8, n as u64),
    }
}

#[inline]
fn unsigned(n: u64) -> Form {
    match n {
        0..=0x7f => short(n as u8),
        0x80..=0xff => form(0xcc, 1, n),
        0x100..=0xffff => form(0xcd, 2, n),
        0x1_0000..=0xffff_ffff => form(0xce, 4, n),
        _ => form(0xcf, 8, n),
    }
}

/// A byte by itself.
#[inline]
fn short(byte: u8) -> Form {
    Form {
        first: byte.into(),
        last: 0,
        len: 1,
    }
}

/// A marker, and so many of the lowest bytes, the highest of them first.
#[inline]
fn form(marker: u8, width: usize, n: u64) -> Form {
    let digits = (n << (64 - 8 * width)).swap_bytes();
    Form {
        first: digits << 8 | u64::from(marker),
        last: (digits >> 56) as u8,
        len: width + 1,
    }
}

/// Appends a number. All nine bytes are copied, which is cheaper than as many as there are.
#[inline]
fn append(out: &mut Vec<u8>, form: Form) {
    let end = out.len() + form.len;
    let mut nine = [form.last; 9];
    nine[..8].copy_from_slice(&form.first.to_le_bytes());
    out.extend_from_slice(&nine);
    out.truncate(end);
}

/// A number that was read: its bits, and whether they are those of a negative one.
struct Read {
    bits: u64,
    negative: bool,
}

impl Read {
    #[inline]
    fn signed(self) -> Option<i64> {
        let n = self.bits as i64;
        (self.negative == (n < 0)).then_some(n)
    }

    #[inline]
    fn unsigned(self) -> Option<u64> {
        (!self.negative).then_some(self.bits)
    }
}

/// The number at the front, and what follows it.
#[inline]
fn read(input: &[u8]) -> Option<(Read, &[u8])> {
    fn digits<const N: usize>(input: &[u8]) -> Option<([u8; N], &[u8])> {
        let (digits, rest) = input.split_first_chunk()?;
        Some((*digits, rest))
    }
    let positive = |n| Read {
        bits: n,
        negative: false,
    };
    let signed = |n: i64| Read {
        bits: n as u64,
        negative: n < 0,
    };
    macro_rules! wide {
        ($read:ident, $integer:ty, $input:expr) => {{
            let (digits, rest) = digits($input)?;
            ($read(<$integer>::from_be_bytes(digits).into()), rest)
        }};
    }
    let (&marker, rest) = input.split_first()?;
    Some(match marker {
        0x00..=0x7f => (positive(marker.into()), rest),
        0xe0..=0xff => (signed((marker as i8).into()), rest),
        0xcc => wide!(positive, u8, rest),
        0xcd => wide!(positive, u16, rest),
        0xce => wide!(positive, u32, rest),
        0xcf => wide!(positive, u64, rest),
        0xd0 => wide!(signed, i8, rest),
        0xd1 => wide!(signed, i16, rest),
        0xd2 => wide!(signed, i32, rest),
        0xd3 => wide!(signed, i64, rest),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers around the borders of all forms.
    fn borders() -> impl Iterator<Item = i128> {
        let borders = (0..=64).flat_map(|bits| [1_i128 << bits, -(1_i128 << bits)]);
        borders.flat_map(|border| [border - 33, border - 1, border, border + 1])
    }

    #[test]
    fn the_bytes_are_those_of_the_general_way() {
        for n in borders() {
            macro_rules! check {
                ($($integer:ty)*) => {$(
                    if let Ok(n) = <$integer>::try_from(n) {
                        let mut bytes = Vec::new();
                        assert!(pack(&mut bytes, &n));
                        assert_eq!(bytes, rmp_serde::to_vec(&n).unwrap(), "{n}");
                        bytes.push(0xc0);
                        let mut rest = &bytes[..];
                        assert_eq!(unpack::<$integer>(&mut rest), Some(n));
                        assert_eq!(rest, [0xc0]);
                    }
                )*};
            }
            check!(i8 i16 i32 i64 u8 u16 u32 u64);
        }
    }

    #[test]
    fn what_does_not_fit_is_left_where_it_is() {
        for (bytes, what) in [
            (&[0xcd, 1, 0][..], "too large"),
            (&[0xff], "negative"),
            (&[0xcc], "cut short"),
            (&[0xca, 0, 0, 0, 0], "no whole number"),
            (&[], "nothing"),
        ] {
            let mut rest = bytes;
            assert_eq!(unpack::<u8>(&mut rest), None, "{what}");
            assert_eq!(rest, bytes, "{what}");
        }
        assert_eq!(unpack::<String>(&mut &[7][..]), None);
    }

    #[test]
    fn every_form_is_read_as_the_number_that_it_is() {
        fn of(marker: u8, digits: &[u8]) -> Vec<u8> {
            [&[marker], digits].concat()
        }
        let large = (1_u64 << 63).to_be_bytes();
        assert_eq!(unpack::<u64>(&mut &of(0xcf, &large)[..]), Some(1 << 63));
        assert_eq!(unpack::<i64>(&mut &of(0xcf, &large)[..]), None);
        assert_eq!(unpack::<i64>(&mut &of(0xd3, &large)[..]), Some(i64::MIN));
        let five = 5_u64.to_be_bytes();
        for (marker, width) in [(0xcc, 1), (0xcd, 2), (0xce, 4), (0xcf, 8)] {
            for marker in [marker, marker + 4] {
                let bytes = of(marker, &five[8 - width..]);
                assert_eq!(unpack::<u8>(&mut &bytes[..]), Some(5), "{marker:#x}");
                assert_eq!(unpack::<i8>(&mut &bytes[..]), Some(5), "{marker:#x}");
                assert_eq!(unpack::<u64>(&mut &bytes[..]), Some(5), "{marker:#x}");
            }
            let minus = (-5_i64).to_be_bytes();
            let bytes = of(marker + 4, &minus[8 - width..]);
            assert_eq!(unpack::<i8>(&mut &bytes[..]), Some(-5), "{marker:#x}");
            assert_eq!(unpack::<u8>(&mut &bytes[..]), None, "{marker:#x}");
            assert_eq!(unpack::<u64>(&mut &bytes[..]), None, "{marker:#x}");
        }
    }
}
