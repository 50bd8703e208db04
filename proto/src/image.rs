//! Pictures in messages: which there are, how they travel as text, and where they stand.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::v1::{Image, Message};

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Piece<'a> {
    /// Words; never none.
    Text(&'a str),
    /// A picture.
    Image(&'a Image),
}

impl Image {
    /// The kinds that models with eyes read (<https://platform.openai.com/docs/guides/images-vision>,
    /// <https://platform.claude.com/docs/en/build-with-claude/vision>).
    pub const MEDIA_TYPES: [&'static str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
    /// How closely to look. Empty: as the model does.
    pub const DETAILS: [&'static str; 4] = ["", "auto", "low", "high"];

    /// Its bytes, as JSON carries them.
    pub fn base64(&self) -> String {
        BASE64_STANDARD.encode(&self.data)
    }

    /// It as an address that holds it (<https://www.rfc-editor.org/rfc/rfc2397>).
    pub fn data_uri(&self) -> String {
        format!("data:{};base64,{}", self.media_type, self.base64())
    }
}

impl Message {
    /// What it says and shows, in its order.
    pub fn pieces(&self) -> Vec<Piece<'_>> {
        pieces(&self.text, &self.images)
    }
}

/// A text, cut where its pictures stand.
pub fn pieces<'a>(text: &'a str, images: &'a [Image]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::with_capacity(2 * images.len() + 1);
    let mut from = 0;
    for image in images {
        let at = place(text, image, from);
        pieces.extend(words(text, from, at));
        pieces.push(Piece::Image(image));
        from = at;
    }
    pieces.extend(words(text, from, text.len()));
    pieces
}

/// Where a picture stands that comes after `from`. A place that is not between two characters counts as the end.
fn place(text: &str, image: &Image, from: usize) -> usize {
    let at = (image.at as usize).max(from);
    if text.is_char_boundary(at) { at } else { text.len() }
}

/// What is said between two pictures. The end of a line joined it to what was said before, and is part of neither.
fn words(text: &str, from: usize, to: usize) -> Option<Piece<'_>> {
    let said = &text[from..to];
    let said = if from > 0 { said.strip_prefix('\n').unwrap_or(said) } else { said };
    (!said.is_empty()).then_some(Piece::Text(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str, places: &[u32]) -> Vec<String> {
        let images: Vec<Image> = places.iter().map(|&at| Image { at, ..Image::default() }).collect();
        let word = |piece| match piece {
            Piece::Text(text) => text,
            Piece::Image(_) => "[image]",
        };
        pieces(text, &images).into_iter().map(word).map(str::to_owned).collect()
    }

    #[test]
    fn pictures_stand_where_they_were_shown() {
        assert_eq!(shape("\nplain\n", &[]), ["\nplain\n"]);
        assert_eq!(shape("", &[0]), ["[image]"]);
        assert_eq!(shape("\nb", &[0]), ["[image]", "\nb"]);
        assert_eq!(shape("look:\n\nand?", &[5]), ["look:", "[image]", "\nand?"]);
        assert_eq!(shape("a\nb", &[1, 1, 3]), ["a", "[image]", "[image]", "b", "[image]"]);
    }

    #[test]
    fn no_place_is_too_odd() {
        assert_eq!(shape("é!", &[1]), ["é!", "[image]"]);
        assert_eq!(shape("a\nb", &[9, 1]), ["a\nb", "[image]", "[image]"]);
    }

    #[test]
    fn a_picture_travels_as_text() {
        let image = Image {
            media_type: "image/png".to_owned(),
            data: vec![0xff, 0xfe],
            ..Image::default()
        };
        assert_eq!(image.data_uri(), "data:image/png;base64,//4=");
    }
}
