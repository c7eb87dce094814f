use super::*;
use crate::testing::reference;

/// The picture of the reference: two gradients and a chequerboard.
fn picture() -> RgbImage {
    RgbImage::from_fn(320, 200, |x, y| {
        image::Rgb([(x * 255 / 319) as u8, (y * 255 / 199) as u8, ((x / 20 + y / 20) % 2 * 200) as u8])
    })
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn the_input_is_that_of_the_reference_but_for_the_encoder() {
    let expected = &reference()["picture"];
    let row = prepare(&picture()).unwrap();
    assert_eq!(row.len(), INPUT_SIDE * INPUT_SIDE * 3);
    let pixels = (INPUT_SIDE * INPUT_SIDE) as f64;
    for (channel, mean) in numbers(&expected["mean"]).into_iter().enumerate() {
        let found = row.iter().skip(channel).step_by(3).map(|value| f64::from(*value)).sum::<f64>() / pixels;
        assert!((found - mean).abs() < 0.5, "channel {channel}: {found}, {mean}");
    }
    // Red and green are smooth: there the points agree. Blue is a chequerboard, whose edges depend on the encoder.
    for point in expected["points"].as_array().unwrap() {
        let (line, column) = (point[0].as_u64().unwrap() as usize, point[1].as_u64().unwrap() as usize);
        let at = (line * INPUT_SIDE + column) * 3;
        for (found, wanted) in row[at..at + 3].iter().zip(numbers(&point[2])).skip(1) {
            assert!(
                (f64::from(*found) - wanted).abs() < 16.0,
                "{line},{column}: {:?} {:?}",
                &row[at..at + 3],
                point[2]
            );
        }
    }
    for (index, mean) in numbers(&expected["rows_mean"]).into_iter().enumerate() {
        let line = &row[index * 32 * INPUT_SIDE * 3..][..INPUT_SIDE * 3];
        let found = line.iter().map(|value| f64::from(*value)).sum::<f64>() / line.len() as f64;
        assert!((found - mean).abs() < 2.0, "row {}: {found}, {mean}", index * 32);
    }
}

#[test]
fn a_file_is_decoded_and_a_damaged_or_huge_one_is_refused() {
    let mut file = Cursor::new(Vec::new());
    picture().write_to(&mut file, image::ImageFormat::Png).unwrap();
    let file = file.into_inner();
    assert_eq!(decode(&file).unwrap(), picture());
    assert!(decode(&file[..file.len() / 2]).is_err());
    assert!(decode(b"not a picture").is_err());
    // A header may claim any size: the width of this one is raised to 100,000 pixels (checksum included).
    let mut huge = file;
    huge[16..20].copy_from_slice(&100_000_u32.to_be_bytes());
    let checksum = crc32(&huge[12..29]);
    huge[29..33].copy_from_slice(&checksum.to_be_bytes());
    assert!(decode(&huge).is_err());
}

/// The checksum of PNG chunks (ISO 3309).
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}
