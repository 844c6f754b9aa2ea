"""Import the images of a folder with the platform's own importer, `panimg`, and tell the result.

It runs in the environment of requirements-platform.txt (Python 3.12).
"""

import argparse
import json
from pathlib import Path


def main() -> None:
    """Import, and print as JSON what the importer says of each image and each refused file."""
    from panimg import convert

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    result = convert(input_directory=options.input, output_directory=options.output)
    images = [
        {
            "name": image.name,
            "size": [image.width, image.height, image.depth],
            "spacing_mm": [image.voxel_width_mm, image.voxel_height_mm, image.voxel_depth_mm],
            "color_space": image.color_space.value,
            "segments": image.segments and sorted(image.segments),
        }
        for image in result.new_images
    ]
    files = [str(file.file) for file in result.new_image_files]
    errors = {str(path): lines for path, lines in result.file_errors.items()}
    print(json.dumps({"images": images, "files": files, "errors": errors}))


if __name__ == "__main__":
    main()
