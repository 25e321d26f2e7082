//! Whole numbers, packed and unpacked by hand: no value is more common, and the general way takes
//! several times as long for the same bytes.

use std::any::Any;

use super::Pack;

macro_rules! each_integer {
    ($do:ident) => {
        $do!(i8 i16 i32 i64 u8 u16 u32 u64)
    };
}

/// Packs a value if its type is one of whole numbers; whether it is.
#[inline]
pub(crate) fn pack<T: 'static>(out: &mut impl Pack, value: &T) -> bool {
    let value: &dyn Any = value;
    macro_rules! pack_one {
        ($form:ident: $($integer:ty)*) => {$(
            if let Some(&n) = value.downcast_ref::<$integer>() {
                let (bytes, len) = $form(n.into());
                out.pack_short(bytes, len);
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
pub(super) fn unpack<T: 'static>(input: &mut &[u8]) -> Option<T> {
    let mut value: Option<T> = None;
    let any: &mut dyn Any = &mut value;
    macro_rules! unpack_one {
        ($($integer:ty)*) => {$(
            if let Some(value) = any.downcast_mut::<Option<$integer>>() {
                let (n, rest) = read(input)?;
                *value = Some(n.try_into().ok()?);
                *input = rest;
            }
        )*};
    }
    each_integer!(unpack_one);
    value
}

/// A number's form: so many bytes at the front.
#[inline]
fn signed(n: i64) -> ([u8; 9], usize) {
    match n {
        0.. => unsigned(n as u64),
        -0x20..=-1 => ([n as u8; 9], 1),
        -0x80..=-0x21 => form(0xd0, 1, n as u64),
        -0x8000..=-0x81 => form(0xd1, 2, n as u64),
        -0x8000_0000..=-0x8001 => form(0xd2, 4, n as u64),
        _ => form(0xd3, 8, n as u64),
    }
}

#[inline]
fn unsigned(n: u64) -> ([u8; 9], usize) {
    match n {
        0..=0x7f => ([n as u8; 9], 1),
        0x80..=0xff => form(0xcc, 1, n),
        0x100..=0xffff => form(0xcd, 2, n),
        0x1_0000..=0xffff_ffff => form(0xce, 4, n),
        _ => form(0xcf, 8, n),
    }
}

/// A marker, and so many of the lowest bytes.
#[inline]
fn form(marker: u8, width: usize, n: u64) -> ([u8; 9], usize) {
    let mut bytes = [marker; 9];
    bytes[1..].copy_from_slice(&(n << (64 - 8 * width)).to_be_bytes());
    (bytes, width + 1)
}

/// The number at the front, and what follows it.
#[inline]
fn read(input: &[u8]) -> Option<(i128, &[u8])> {
    fn digits<const N: usize>(input: &[u8]) -> Option<([u8; N], &[u8])> {
        let (digits, rest) = input.split_first_chunk()?;
        Some((*digits, rest))
    }
    macro_rules! wide {
        ($integer:ty, $input:expr) => {{
            let (digits, rest) = digits($input)?;
            (<$integer>::from_be_bytes(digits).into(), rest)
        }};
    }
    let (&marker, rest) = input.split_first()?;
    Some(match marker {
        0x00..=0x7f => (marker.into(), rest),
        0xe0..=0xff => ((marker as i8).into(), rest),
        0xcc => wide!(u8, rest),
        0xcd => wide!(u16, rest),
        0xce => wide!(u32, rest),
        0xcf => wide!(u64, rest),
        0xd0 => wide!(i8, rest),
        0xd1 => wide!(i16, rest),
        0xd2 => wide!(i32, rest),
        0xd3 => wide!(i64, rest),
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
            each_integer!(check);
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
}
