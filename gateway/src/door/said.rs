//! What somebody says and shows, part after part, as all doors read it: texts become one, line after line, and images stand between them.
//!
//! An image comes with the request, in a `data:` URI (<https://www.rfc-editor.org/rfc/rfc2397>) or as base64. No address is ever fetched: who
//! sends one could make the mesh ask servers that only the mesh can reach.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use proto::v1::{Failure, Image, Reason};

use crate::failure::Refusal;

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The parts so far.
#[derive(Debug, Default)]
pub(crate) struct Said {
    text: String,
    spoken: bool,
    images: Vec<Image>,
}

impl Said {
    /// Words.
    pub(crate) fn say(&mut self, text: &str) {
        if self.spoken {
            self.text.push('\n');
        }
        self.spoken = true;
        self.text.push_str(text);
    }

    /// An image by its address, which has to hold it; `param` names the address.
    ///
    /// # Errors
    /// It is elsewhere, or no image that models read.
    pub(crate) fn show(&mut self, param: &str, uri: &str, detail: Option<String>) -> Result<(), Refusal> {
        let Some(inside) = uri
            .get(..5)
            .filter(|scheme| scheme.eq_ignore_ascii_case("data:"))
            .map(|scheme| &uri[scheme.len()..])
        else {
            let message = format!("{param}: expected a data: URI that holds the image: no address is ever fetched");
            return Err(unsupported(param, message));
        };
        let (kind, data) = inside.split_once(',').unwrap_or((inside, ""));
        let Some((media_type, "base64")) = kind.rsplit_once(';') else {
            let message = format!("{param}: expected data:<media type>;base64,<data>");
            return Err(Refusal::invalid(param, message));
        };
        let media_type = media_type.split(';').next().unwrap_or_default();
        self.show_file((param, param), media_type, data, detail)
    }

    /// An image by its media type and its bytes in base64, which `params` name.
    ///
    /// # Errors
    /// It is no image that models read.
    pub(crate) fn show_file(
        &mut self,
        params: (&str, &str),
        media_type: &str,
        base64: &str,
        detail: Option<String>,
    ) -> Result<(), Refusal> {
        let media_type = match media_type.to_ascii_lowercase() {
            name if name == "image/jpg" => "image/jpeg".to_owned(), // what it is often called, and is not
            name => name,
        };
        if !Image::MEDIA_TYPES.contains(&media_type.as_str()) {
            let message = format!(
                "{}: expected an image of one of the types {}, got {media_type:?}",
                params.0,
                Image::MEDIA_TYPES.join(", ")
            );
            return Err(unsupported(params.0, message));
        }
        let data = BASE64.decode(base64).ok().filter(|data| !data.is_empty());
        let Some(data) = data else {
            return Err(Refusal::invalid(params.1, format!("{}: expected an image in base64", params.1)));
        };
        self.images.push(Image {
            media_type,
            data,
            detail: detail.unwrap_or_default(),
            at: u32::try_from(self.text.len()).unwrap_or(u32::MAX),
        });
        Ok(())
    }

    /// Whether there was no part at all.
    pub(crate) fn is_empty(&self) -> bool {
        !self.spoken && self.images.is_empty()
    }

    /// The text, and the images in it.
    pub(crate) fn into_parts(self) -> (String, Vec<Image>) {
        (self.text, self.images)
    }
}

/// Refuses an image that is not a user's.
///
/// # Errors
/// It is not.
pub(crate) fn shown_by_user(param: &str, by_user: bool) -> Result<(), Refusal> {
    if by_user {
        return Ok(());
    }
    Err(Refusal::invalid(param, format!("{param}: only a user's messages show images")))
}

/// How closely to look.
///
/// # Errors
/// It is not one of the words that there are.
pub(crate) fn detail(param: &str, given: Option<String>) -> Result<Option<String>, Refusal> {
    match given {
        Some(word) if !Image::DETAILS.contains(&word.as_str()) => {
            let message = format!("{param}: expected low, high or auto, got {word:?}");
            Err(Refusal::invalid(param, message))
        }
        given => Ok(given),
    }
}

fn unsupported(param: &str, message: String) -> Refusal {
    Failure {
        param: param.to_owned(),
        ..Failure::new(Reason::Unsupported, message)
    }
    .into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(uri: &str) -> Result<Image, String> {
        let mut said = Said::default();
        said.say("a");
        said.show("url", uri, None)
            .map_err(|refusal| refusal.object()["message"].as_str().unwrap().to_owned())?;
        Ok(said.into_parts().1.remove(0))
    }

    #[test]
    fn images_are_read_from_their_address_alone() {
        assert_eq!(shown("data:image/jpg;base64,AAAA").unwrap().media_type, "image/jpeg");
        for uri in ["data:image/png;base64,//4=", "DATA:Image/PNG;charset=x;base64,//4"] {
            let image = shown(uri).unwrap();
            assert_eq!(
                (image.media_type.as_str(), image.data.as_slice(), image.at),
                ("image/png", [0xff, 0xfe].as_slice(), 1)
            );
        }
        for (uri, said) in [
            ("https://example.org/a.png", "no address is ever fetched"),
            ("file:///etc/passwd", "no address is ever fetched"),
            ("", "no address is ever fetched"),
            ("data:image/svg+xml;base64,AAAA", "image/webp, got \"image/svg+xml\""),
            ("data:image/png,AAAA", "expected data:<media type>;base64,<data>"),
            ("data:image/png;base64,", "expected an image in base64"),
            ("data:image/png;base64,%%", "expected an image in base64"),
        ] {
            let message = shown(uri).unwrap_err();
            assert!(message.starts_with("url: ") && message.contains(said), "{uri}: {message}");
        }
    }

    #[test]
    fn texts_are_lines_and_images_stand_between_them() {
        let mut said = Said::default();
        said.say("a");
        said.show("url", "data:image/gif;base64,AAAA", None).unwrap();
        said.say("b");
        said.say("c");
        let (text, images) = said.into_parts();
        assert_eq!((text.as_str(), images[0].at), ("a\nb\nc", 1));
    }

    proptest! {
        #[test]
        fn any_address_is_an_image_or_is_refused(uri in "(data:)?.{0,40}") {
            let _ = shown(&uri);
        }

        #[test]
        fn what_is_written_as_an_address_is_read_again(data in prop::collection::vec(any::<u8>(), 1..50)) {
            let image = Image { media_type: "image/webp".to_owned(), data, at: 1, ..Image::default() };
            prop_assert_eq!(shown(&image.data_uri()).unwrap(), image);
        }
    }
}
