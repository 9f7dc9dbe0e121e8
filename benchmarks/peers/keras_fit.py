"""Keras 3 on TensorFlow: ``fit`` with ``tf.data``, flips and shifts in the pipeline."""

from __future__ import annotations

import json
import os
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

BATCH = 128
found: list[layers.Layer] = [keras.Input((48, 48, 1))]
for index, (filters, kernel) in enumerate([(64, 2), (64, 2), (128, 3), (128, 3), (128, 3)], 1):
    found += [layers.Conv2D(filters, kernel), layers.BatchNormalization(), layers.ReLU()]
    if index in (2, 5):
        found.append(layers.MaxPooling2D(2))
found.append(layers.Flatten())
for units in (2048, 1024):
    found += [layers.Dense(units, activation="relu"), layers.Dropout(0.5)]
network = keras.Sequential([*found, layers.Dense(7)])
network.compile(
    keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)


def changed(face, label):
    """Normalise, flip and shift a face."""
    face = (tf.cast(face, tf.float32)[..., None] / 255 - 0.5) / 0.25
    face = tf.image.random_flip_left_right(face)
    return tf.roll(face, tf.random.uniform((2,), -4, 5, tf.int32), (0, 1)), label


def epoch(images, labels):
    """Show every face once."""
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(labels))
    data = data.map(changed, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH)
    network.fit(data.prefetch(tf.data.AUTOTUNE), epochs=1, verbose=0)


faces = np.load(sys.argv[1])
images, labels = faces["images"], faces["labels"]
tenth = len(labels) // 10 // BATCH * BATCH or BATCH
epoch(images[:tenth], labels[:tenth])
began = time.perf_counter()
epoch(images, labels)
print(json.dumps({"images_per_second": len(labels) / (time.perf_counter() - began)}))
