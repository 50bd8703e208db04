//! What pictures a message may show. What a file holds only its model can judge.

use proto::v1::{ChatRequest, Failure, Image, Message, Role};

/// Pictures of one request.
const MAX_IMAGES: usize = 64;
/// Judges the pictures of all messages.
///
/// # Errors
/// Names the first field that is wrong, and what was expected.
pub(super) fn check(request: &ChatRequest) -> Result<(), Failure> {
    let count: usize = request.messages.iter().map(|message| message.images.len()).sum();
    if count > MAX_IMAGES {
        let message = format!("the messages show {count} images; at most {MAX_IMAGES} are allowed");
        return Err(Failure::invalid("messages", message));
    }
    let showing = request
        .messages
        .iter()
        .enumerate()
        .filter(|(_, message)| !message.images.is_empty());
    showing.into_iter().try_for_each(|(index, message)| of_message(index, message))
}

fn of_message(index: usize, message: &Message) -> Result<(), Failure> {
    if !matches!(message.role(), Role::User | Role::Unspecified) {
        let field = format!("messages[{index}].images");
        return Err(Failure::invalid(&field, format!("{field}: only a user's messages show images")));
    }
    let mut before = 0;
    for (number, image) in message.images.iter().enumerate() {
        let wrong = |field: &str, expected: &str| {
            let field = format!("messages[{index}].images[{number}].{field}");
            Err(Failure::invalid(&field, format!("{field}: expected {expected}")))
        };
        if !Image::MEDIA_TYPES.contains(&image.media_type.as_str()) {
            return wrong("media_type", "image/png, image/jpeg, image/gif or image/webp");
        }
        if image.data.is_empty() {
            return wrong("data", "an image's bytes, got none");
        }
        if !Image::DETAILS.contains(&image.detail.as_str()) {
            return wrong("detail", "low, high or auto");
        }
        if image.at < before || !message.text.is_char_boundary(image.at as usize) {
            return wrong(
                "at",
                "a place between two characters of the text, not before that of the image before",
            );
        }
        before = image.at;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Message)) -> Option<String> {
        let image = || Image {
            media_type: "image/png".to_owned(),
            data: vec![1],
            at: 2,
            ..Image::default()
        };
        let mut message = Message {
            role: Role::User.into(),
            text: "é?".to_owned(),
            images: vec![image(), image()],
            ..Message::default()
        };
        change(&mut message);
        let request = ChatRequest {
            messages: vec![message],
            ..ChatRequest::default()
        };
        check(&request).err().map(|failure| failure.param)
    }

    #[test]
    fn each_wrong_field_is_named() {
        assert_eq!(refused(|_| {}), None);
        let named = |field: &str| Some(format!("messages[0].{field}"));
        assert_eq!(refused(|message| message.role = Role::Assistant.into()), named("images"));
        assert_eq!(
            refused(|message| message.images[1].media_type = "image/svg+xml".to_owned()),
            named("images[1].media_type")
        );
        assert_eq!(refused(|message| message.images[0].data.clear()), named("images[0].data"));
        assert_eq!(
            refused(|message| message.images[0].detail = "best".to_owned()),
            named("images[0].detail")
        );
        for wrong in [0, 1, 9] {
            assert_eq!(refused(|message| message.images[1].at = wrong), named("images[1].at"));
        }
        assert_eq!(
            refused(|message| message.images = vec![message.images[0].clone(); MAX_IMAGES + 1]),
            Some("messages".to_owned())
        );
    }
}
