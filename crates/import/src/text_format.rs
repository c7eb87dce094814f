//! Reading protobuf's text format (protobuf.dev/reference/protobuf/textformat-spec) without a schema.
//!
//! The readers there are need the messages' descriptors and end at the first field these do not have. An import must go
//! on and tell about it, so this one gives the fields as they are written, and what they mean is decided by whoever knows
//! their names.
//!
//! The text is whatever lies in somebody's folder: its length, its depth and the number of its fields are bounded, and
//! nothing in it makes the reader panic.

mod lexer;

use lexer::{Lexer, Token};

/// The longest text, bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// How deep messages may lie in each other.
pub const MAX_DEPTH: usize = 32;
/// The most fields and list elements of one text, those of messages inside it included.
pub const MAX_FIELDS: usize = 20_000;

/// A message: its fields in the order they came. A list is as many fields of one name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// The fields.
    pub fields: Vec<Field>,
}

/// One field.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name; that of an extension is in brackets.
    pub name: String,
    /// What it is set to.
    pub value: Value,
    /// Where it begins, counted from 1.
    pub line: u32,
}

/// What a field is set to.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A quoted text.
    Text(String),
    /// A word without quotes: a name of an enumeration, `true`, `false`.
    Word(String),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Fields in braces.
    Message(Message),
}

/// A text that is not in the format. The text of the error names nothing but what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct TextFormatError {
    /// Counted from 1.
    pub line: u32,
    /// What is wrong.
    pub problem: &'static str,
}

/// Reads a whole text.
///
/// # Errors
/// The first place where the text is not in the format, or beyond a bound.
pub fn parse(text: &str) -> Result<Message, TextFormatError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(TextFormatError { line: 1, problem: "the text is longer than 1 MiB" });
    }
    let mut parser = Parser { lexer: Lexer::new(text), fields_left: MAX_FIELDS };
    parser.message(None, 0)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    fields_left: usize,
}

impl Parser<'_> {
    fn fail<T>(&self, problem: &'static str) -> Result<T, TextFormatError> {
        Err(TextFormatError { line: self.lexer.line(), problem })
    }

    /// The fields up to `end`, or up to the end of the text.
    fn message(&mut self, end: Option<char>, depth: usize) -> Result<Message, TextFormatError> {
        if depth > MAX_DEPTH {
            return self.fail("messages lie too deep in each other");
        }
        let mut message = Message::default();
        loop {
            let line = self.lexer.line_of_next()?;
            match (self.lexer.next()?, end) {
                (None, None) => return Ok(message),
                (None, Some(_)) => return self.fail("the text ends inside a message"),
                (Some(Token::Mark(mark)), Some(end)) if mark == end => return Ok(message),
                (Some(Token::Word(name)), _) => self.values(name, line, depth, &mut message)?,
                (Some(Token::Mark('[')), _) => {
                    let name = self.extension()?;
                    self.values(name, line, depth, &mut message)?;
                }
                _ => return self.fail("expected the name of a field"),
            }
            if matches!(self.lexer.peek()?, Some(Token::Mark(',' | ';'))) {
                self.lexer.next()?;
            }
        }
    }

    /// The name of an extension or of a packed message's type, behind its opening bracket.
    fn extension(&mut self) -> Result<String, TextFormatError> {
        let mut name = "[".to_owned();
        loop {
            match self.lexer.next()? {
                Some(Token::Word(part)) => name.push_str(&part),
                Some(Token::Mark(mark @ ('.' | '/' | '-'))) => name.push(mark),
                Some(Token::Mark(']')) => break,
                _ => return self.fail("expected the name of an extension"),
            }
        }
        name.push(']');
        Ok(name)
    }

    /// What stands behind a field's name: a value or a list of them.
    fn values(&mut self, name: String, line: u32, depth: usize, into: &mut Message) -> Result<(), TextFormatError> {
        let colon = matches!(self.lexer.peek()?, Some(Token::Mark(':')));
        if colon {
            self.lexer.next()?;
        }
        if !matches!(self.lexer.peek()?, Some(Token::Mark('['))) {
            let value = self.value(colon, depth)?;
            return self.push(name, line, value, into);
        }
        self.lexer.next()?;
        if matches!(self.lexer.peek()?, Some(Token::Mark(']'))) {
            self.lexer.next()?;
            return Ok(());
        }
        loop {
            let value = self.value(colon, depth)?;
            self.push(name.clone(), line, value, into)?;
            match self.lexer.next()? {
                Some(Token::Mark(',')) => {}
                Some(Token::Mark(']')) => return Ok(()),
                _ => return self.fail("expected `,` or `]` in a list"),
            }
        }
    }

    fn push(&mut self, name: String, line: u32, value: Value, into: &mut Message) -> Result<(), TextFormatError> {
        let Some(left) = self.fields_left.checked_sub(1) else { return self.fail("there are too many fields") };
        self.fields_left = left;
        into.fields.push(Field { name, value, line });
        Ok(())
    }

    /// One value. Only messages may stand without a colon.
    fn value(&mut self, colon: bool, depth: usize) -> Result<Value, TextFormatError> {
        let token = self.lexer.next()?;
        match token {
            Some(Token::Mark('{')) => self.message(Some('}'), depth + 1).map(Value::Message),
            Some(Token::Mark('<')) => self.message(Some('>'), depth + 1).map(Value::Message),
            _ if !colon => self.fail("expected `:` or `{` behind a field's name"),
            Some(Token::Text(mut text)) => {
                // Texts that follow each other are one.
                while matches!(self.lexer.peek()?, Some(Token::Text(_))) {
                    if let Some(Token::Text(more)) = self.lexer.next()? {
                        text.push_str(&more);
                    }
                }
                Ok(Value::Text(text))
            }
            Some(Token::Word(word)) => Ok(match word.as_str() {
                "inf" | "infinity" => Value::Float(f64::INFINITY),
                "nan" => Value::Float(f64::NAN),
                _ => Value::Word(word),
            }),
            Some(Token::Integer(number)) => Ok(Value::Integer(number)),
            Some(Token::Float(number)) => Ok(Value::Float(number)),
            Some(Token::Mark('-')) => match self.lexer.next()? {
                Some(Token::Integer(number)) => Ok(Value::Integer(-number)),
                Some(Token::Float(number)) => Ok(Value::Float(-number)),
                Some(Token::Word(word)) if matches!(word.as_str(), "inf" | "infinity") => {
                    Ok(Value::Float(f64::NEG_INFINITY))
                }
                _ => self.fail("expected a number behind `-`"),
            },
            _ => self.fail("expected a value"),
        }
    }
}

#[cfg(test)]
mod tests;
