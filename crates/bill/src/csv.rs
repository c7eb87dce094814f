//! Comma-separated values as of RFC 4180. Lines end with a line feed alone, as tools of this century write them.

/// A table that grows line by line.
#[derive(Debug, Default)]
pub(crate) struct Table(String);

impl Table {
    /// A table with its first line.
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut table = Self::default();
        table.line(header.iter().map(|name| Some(*name)));
        table
    }

    /// One line. What is absent is an empty field, and so is an empty text: readers do not tell them apart.
    pub(crate) fn line<'a>(&mut self, fields: impl IntoIterator<Item = Option<&'a str>>) {
        for (place, field) in fields.into_iter().enumerate() {
            if place > 0 {
                self.0.push(',');
            }
            self.field(field.unwrap_or(""));
        }
        self.0.push('\n');
    }

    fn field(&mut self, text: &str) {
        let is_plain = !text.contains([',', '"', '\n', '\r']) && text.trim() == text;
        if is_plain {
            self.0.push_str(text);
            return;
        }
        self.0.push('"');
        self.0.push_str(&text.replace('"', "\"\""));
        self.0.push('"');
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_misread_is_quoted() {
        let mut table = Table::new(&["a", "b"]);
        table.line([Some("1,2"), None]);
        table.line([Some("say \"no\""), Some(" x")]);
        assert_eq!(table.finish(), "a,b\n\"1,2\",\n\"say \"\"no\"\"\",\" x\"\n");
    }
}
