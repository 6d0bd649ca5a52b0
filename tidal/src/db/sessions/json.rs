//! One JSON object a line, as RFC 8259 has it.
//!
//! Knows: escapes. Must not know: what is written.

use std::fmt::Write;

/// An object that is being written; members come in the order in which they are given.
pub(super) struct Object {
    out: String,
}

impl Object {
    pub(super) fn new() -> Self {
        Self { out: "{".to_owned() }
    }

    /// A member that is a text.
    pub(super) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        put_text(&mut self.out, value);
        self
    }

    /// A member that is a whole number. Readers that keep numbers as floats are exact up to 2^53 only;
    /// sequence numbers and nanoseconds since 1970 are beyond that, so give them as text to such.
    pub(super) fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name);
        write!(self.out, "{value}").expect("a string takes everything");
        self
    }

    /// A member that is a float, in the fewest digits that are read back as the same float; `null` for
    /// what JSON has no number for.
    pub(super) fn float(&mut self, name: &str, value: f64) -> &mut Self {
        self.name(name);
        match value.is_finite() {
            true => write!(self.out, "{value:?}").expect("a string takes everything"),
            false => self.out.push_str("null"),
        }
        self
    }

    pub(super) fn boolean(&mut self, name: &str, value: bool) -> &mut Self {
        self.name(name);
        self.out.push_str(if value { "true" } else { "false" });
        self
    }

    /// A member that is another object.
    pub(super) fn object(&mut self, name: &str, value: Self) -> &mut Self {
        self.name(name);
        self.out.push_str(&value.finish());
        self
    }

    pub(super) fn finish(mut self) -> String {
        self.out.push('}');
        self.out
    }

    fn name(&mut self, name: &str) {
        if self.out.len() > 1 {
            self.out.push(',');
        }
        put_text(&mut self.out, name);
        self.out.push(':');
    }
}

fn put_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Two line separators are no line ends in JSON, but are to many who split lines.
            '\0'..='\x1f' | '\x7f' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes everything");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_order_and_nest() {
        let mut inner = Object::new();
        inner.text("b", "c").boolean("d", false);
        let mut object = Object::new();
        object.number("n", u64::MAX).object("inner", inner).object("empty", Object::new());
        assert_eq!(
            object.finish(),
            r#"{"n":18446744073709551615,"inner":{"b":"c","d":false},"empty":{}}"#
        );
    }

    #[test]
    fn what_a_text_may_not_hold_is_escaped_and_the_rest_is_as_it_was() {
        let mut object = Object::new();
        object.text("te\"xt", "\"\\\n\r\t\0\u{1f}\u{7f}\u{2028}/é👍");
        let expected = concat!(r#"{"te\"xt":"\"\\\n\r\t"#, r"\u0000\u001f\u007f\u2028", "/é👍\"}");
        assert_eq!(object.finish(), expected);
    }

    #[test]
    fn floats_come_back_as_they_were_or_are_null() {
        for value in [0.0, -0.0, 1.0, 0.1, 1e-300, 1.797_693_134_862_315_7e308, 123_456.789] {
            let mut object = Object::new();
            object.float("x", value);
            let text = object.finish();
            let number = text.strip_prefix("{\"x\":").and_then(|t| t.strip_suffix('}')).unwrap();
            assert_eq!(number.parse::<f64>().map(f64::to_bits), Ok(value.to_bits()), "{text}");
        }
        let mut object = Object::new();
        object.float("x", f64::NAN).float("y", f64::INFINITY);
        assert_eq!(object.finish(), r#"{"x":null,"y":null}"#);
    }
}
