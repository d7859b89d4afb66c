//! A second encoder of the wire, written from `docs/protocol.md` and not from the codec.
//!
//! It is a `serde` serializer that keeps, beside each piece of bytes, what the piece is. `frozen.rs` demands that its
//! bytes equal the codec's for every example: so the page's rules are enough to write a client, and the hex listings of
//! the page (which it prints) can't name a byte wrongly.

use serde::ser::{self, Serialize};

use super::hex;

/// A run of bytes and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// The field they belong to, and what they say.
    pub(crate) label: String,
}

/// The pieces of a message, in order. The first variant met is its kind.
#[derive(Debug, Default)]
pub(crate) struct Annotator {
    pieces: Vec<Piece>,
    path: Vec<String>,
    /// Type, index and serde name of the outermost variant.
    pub(crate) outermost: Option<(&'static str, u32, &'static str)>,
}

/// Never made: the rules below cover all that the types can hold.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unknown(String);

impl ser::Error for Unknown {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// The pieces of `message`, without a frame's header.
pub(crate) fn annotate<T: Serialize>(message: &T) -> Annotator {
    let mut annotator = Annotator::default();
    message.serialize(&mut annotator).expect("the rules cover every type on the wire");
    annotator
}

impl Annotator {
    /// All bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).collect()
    }

    /// A listing: sixteen bytes a line, then what they are. `header` is put in front where there is a frame.
    pub(crate) fn listing(&self, header: Option<&[u8]>) -> String {
        let first = header.map(|bytes| Piece {
            bytes: bytes.to_vec(),
            label: format!("header: {} bytes of payload", self.bytes().len()),
        });
        let mut text = String::new();
        for piece in first.iter().chain(&self.pieces) {
            if piece.bytes.is_empty() {
                continue;
            }
            for (index, row) in piece.bytes.chunks(16).enumerate() {
                let label = if index == 0 { format!("# {}", piece.label) } else { String::new() };
                text.push_str(format!("{:<48}{label}", hex::spaced(row)).trim_end());
                text.push('\n');
            }
        }
        text
    }

    fn put(&mut self, bytes: &[u8], said: &str) {
        let place = self.path.concat();
        let place = place.trim_start_matches('.');
        let label = match (place.is_empty(), said.is_empty()) {
            (true, _) => said.to_owned(),
            (false, true) => place.to_owned(),
            (false, false) => format!("{place}: {said}"),
        };
        self.pieces.push(Piece { bytes: bytes.to_vec(), label });
    }

    fn within<T: Serialize + ?Sized>(&mut self, step: String, value: &T) -> Result<(), Unknown> {
        self.path.push(step);
        let result = value.serialize(&mut *self);
        self.path.pop();
        result
    }

    fn variant(&mut self, name: &'static str, index: u32, variant: &'static str) {
        self.outermost.get_or_insert((name, index, variant));
        self.put(&index.to_le_bytes(), &format!("{name} {variant}"));
    }

    fn length(&mut self, length: usize, unit: &str) {
        let length = u64::try_from(length).unwrap();
        self.put(&length.to_le_bytes(), &format!("{length} {unit}"));
    }
}

/// Fields, elements and variants of compound values.
pub(crate) struct Compound<'a> {
    annotator: &'a mut Annotator,
    index: usize,
    /// Where the bytes of a fixed array of bytes began: they become one piece.
    array: Option<usize>,
}

impl Compound<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unknown> {
        let step = format!("[{}]", self.index);
        self.index += 1;
        self.annotator.within(step, value)
    }

    /// One piece for an array of single bytes (`magic`, a digest), else the elements as they are.
    fn close(self) {
        let Some(from) = self.array else { return };
        let pieces = &self.annotator.pieces[from..];
        if pieces.len() > 4 && pieces.iter().all(|piece| piece.bytes.len() == 1) {
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).collect();
            let text = if bytes.iter().all(u8::is_ascii_graphic) { quoted(&bytes) } else { String::new() };
            self.annotator.pieces.truncate(from);
            self.annotator.put(&bytes, &text);
        }
    }
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

macro_rules! numbers {
    ($($method:ident: $kind:ty),* $(,)?) => {
        $(fn $method(self, value: $kind) -> Result<(), Unknown> {
            self.put(&value.to_le_bytes(), &value.to_string());
            Ok(())
        })*
    };
}

impl<'a> ser::Serializer for &'a mut Annotator {
    type Ok = ();
    type Error = Unknown;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = ser::Impossible<(), Unknown>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    numbers!(
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
    );

    fn serialize_bool(self, value: bool) -> Result<(), Unknown> {
        self.put(&[u8::from(value)], &value.to_string());
        Ok(())
    }
    fn serialize_str(self, text: &str) -> Result<(), Unknown> {
        self.length(text.len(), "bytes of text follow");
        self.put(text.as_bytes(), &quoted(text.as_bytes()));
        Ok(())
    }
    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Unknown> {
        self.length(bytes.len(), "bytes follow");
        let readable = bytes.iter().all(|byte| byte.is_ascii_graphic() || b" \n\t".contains(byte));
        self.put(bytes, if readable { quoted(bytes) } else { String::new() }.as_str());
        Ok(())
    }
    fn serialize_none(self) -> Result<(), Unknown> {
        self.put(&[0], "none");
        Ok(())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unknown> {
        self.put(&[1], "some");
        value.serialize(self)
    }
    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<(), Unknown> {
        self.variant(name, index, variant);
        Ok(())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unknown> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unknown> {
        self.variant(name, index, variant);
        value.serialize(self)
    }
    fn serialize_seq(self, length: Option<usize>) -> Result<Compound<'a>, Unknown> {
        let length = length.ok_or_else(|| Unknown("a list of unknown length".into()))?;
        self.length(length, "elements follow");
        Ok(Compound { annotator: self, index: 0, array: None })
    }
    fn serialize_tuple(self, _: usize) -> Result<Compound<'a>, Unknown> {
        let from = self.pieces.len();
        Ok(Compound { annotator: self, index: 0, array: Some(from) })
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>, Unknown> {
        Ok(Compound { annotator: self, index: 0, array: None })
    }
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a>, Unknown> {
        self.variant(name, index, variant);
        Ok(Compound { annotator: self, index: 0, array: None })
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>, Unknown> {
        Ok(Compound { annotator: self, index: 0, array: None })
    }
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a>, Unknown> {
        self.variant(name, index, variant);
        Ok(Compound { annotator: self, index: 0, array: None })
    }

    // What the wire has no form for: a type that needs one of these doesn't belong on it.
    fn serialize_f32(self, _: f32) -> Result<(), Unknown> {
        Err(Unknown("the wire has no floating point".into()))
    }
    fn serialize_f64(self, _: f64) -> Result<(), Unknown> {
        Err(Unknown("the wire has no floating point".into()))
    }
    fn serialize_char(self, _: char) -> Result<(), Unknown> {
        Err(Unknown("the wire has no characters".into()))
    }
    fn serialize_unit(self) -> Result<(), Unknown> {
        Err(Unknown("the wire has no unit".into()))
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unknown> {
        Err(Unknown("the wire has no unit".into()))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Unknown> {
        Err(Unknown("the wire has no maps".into()))
    }
    fn is_human_readable(&self) -> bool {
        false
    }
}

impl ser::SerializeSeq for Compound<'_> {
    type Ok = ();
    type Error = Unknown;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unknown> {
        self.element(value)
    }
    fn end(self) -> Result<(), Unknown> {
        Ok(())
    }
}

impl ser::SerializeTuple for Compound<'_> {
    type Ok = ();
    type Error = Unknown;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unknown> {
        self.element(value)
    }
    fn end(self) -> Result<(), Unknown> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeTupleStruct for Compound<'_> {
    type Ok = ();
    type Error = Unknown;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unknown> {
        self.element(value)
    }
    fn end(self) -> Result<(), Unknown> {
        Ok(())
    }
}

impl ser::SerializeTupleVariant for Compound<'_> {
    type Ok = ();
    type Error = Unknown;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unknown> {
        self.element(value)
    }
    fn end(self) -> Result<(), Unknown> {
        Ok(())
    }
}

impl ser::SerializeStruct for Compound<'_> {
    type Ok = ();
    type Error = Unknown;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Unknown> {
        self.annotator.within(format!(".{key}"), value)
    }
    fn end(self) -> Result<(), Unknown> {
        Ok(())
    }
}

impl ser::SerializeStructVariant for Compound<'_> {
    type Ok = ();
    type Error = Unknown;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Unknown> {
        self.annotator.within(format!(".{key}"), value)
    }
    fn end(self) -> Result<(), Unknown> {
        Ok(())
    }
}
