"""Time of OpenCV and Pillow on the work of the example `preprocess`: python3 preprocess_reference.py [width height].

Needs numpy, opencv-python-headless and pillow. One thread; conversion to RGB, resize to 224 x 224, normalisation to float32 [3, H, W].
OpenCV's INTER_AREA is a box filter, which is less work than the antialiased bicubic of ssl-edge and Pillow.
"""

import sys
import time

import cv2
import numpy as np
from PIL import Image

ROUNDS = 60
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


def least(work):
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def normalise(rgb):
    return np.ascontiguousarray(((rgb.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1))


def main():
    width, height = (int(a) for a in sys.argv[1:3]) if len(sys.argv) == 3 else (1920, 1080)
    cv2.setNumThreads(1)
    noise = np.random.default_rng(0).integers(0, 256, (height * 3 // 2, width, 4), np.uint8)
    bgr = np.ascontiguousarray(noise[:height, :, :3])
    gray = np.ascontiguousarray(noise[:height, :, 0])
    nv12 = np.ascontiguousarray(noise[:, :, 0])
    yuyv = np.ascontiguousarray(noise[:height, :, :2])
    area = lambda image: cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
    sources = {
        "Gray8": lambda: cv2.cvtColor(area(gray), cv2.COLOR_GRAY2RGB),
        "Bgr8": lambda: cv2.cvtColor(area(bgr), cv2.COLOR_BGR2RGB),
        "Nv12": lambda: area(cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12)),
        "Yuyv": lambda: area(cv2.cvtColor(yuyv, cv2.COLOR_YUV2RGB_YUY2)),
        "BayerRg8": lambda: area(cv2.cvtColor(gray, cv2.COLOR_BayerBG2RGB)),
    }
    print(f"{width} x {height} to 224 x 224, one thread, least of {ROUNDS}")
    print(f"OpenCV {cv2.__version__} cvtColor and INTER_AREA, normalised by numpy")
    for name, source in sources.items():
        print(f"| {name} | {least(lambda: normalise(source())):.2f} |")
    image = Image.fromarray(bgr[:, :, ::-1])
    bicubic = lambda: normalise(np.asarray(image.resize((224, 224), Image.BICUBIC)))
    print(f"Pillow BICUBIC, RGB that is an Image already: | Rgb8 | {least(bicubic):.2f} |")


main()
