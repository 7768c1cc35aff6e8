"""Cutting frames out of a video, exactly.

PyAV is FFmpeg's libraries in a wheel: it counts the same frames as OpenCV, and unlike cv2.VideoWriter it gives access
to the encoder's quality. A frame goes from decoder to encoder unchanged, without conversion to RGB.
"""

from dataclasses import dataclass
from pathlib import Path

import av
from av.video.frame import PictureType

from utils.download.outcome import DownloadFailure, Status

# x264 at 12 is visually lossless (its default is 23, lossless is 0).
ENCODER = "libx264"

ENCODER_OPTIONS = {"crf": "12", "preset": "medium"}


@dataclass(frozen=True)
class VideoInfo:
    """The data of a video file.

    Attributes:
        frames: Number of frames in the file, counted, not read from its header.
        width: Width of a frame in pixels.
        height: Height of a frame in pixels.
        fps: Frames per second; 0 if the file does not say.
    """

    frames: int
    width: int
    height: int
    fps: float


def inspect_video(path: Path) -> VideoInfo:
    """Count the frames of a file, without decoding them.

    Raises:
        DownloadFailure: If the file is no video.
    """
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = _video_stream(container, path)
            frames = sum(packet.size > 0 for packet in container.demux(stream))
            return VideoInfo(frames, stream.width, stream.height, float(stream.average_rate or 0))
    except av.error.FFmpegError as error:
        raise _damaged(f"{path.name}: cannot be read as a video ({error.strerror})") from error


def cut_frames(source: Path, target: Path, first: int, last: int) -> None:
    """Write frames `first` to `last`, both included, as H.264 in MP4, visually lossless, at the average rate.

    Frames count from 0 in the order in which they are shown, as cv2.VideoCapture gives them.

    Args:
        source: Video to read, of any codec.
        target: File to write.
        first: First frame.
        last: Last frame.

    Raises:
        DownloadFailure: If the source cannot be decoded up to the last frame although its header promises it, or the
            clip cannot be written. Its status is "wrong length" if the source is intact but has fewer frames.
    """
    decoded = 0
    try:
        with (
            av.open(str(source), metadata_errors="ignore") as reader,
            av.open(str(target), "w", format="mp4") as writer,
        ):
            stream = _video_stream(reader, source)
            stream.thread_type = "AUTO"
            clip = _add_clip_stream(writer, stream)
            for frame in reader.decode(stream):
                if decoded >= first:
                    picture = frame.reformat(format="yuv420p")
                    picture.pts, picture.time_base = decoded - first, 1 / clip.codec_context.framerate
                    # Otherwise the encoder would repeat the source's choice of key frames.
                    picture.pict_type = PictureType.NONE
                    writer.mux(clip.encode(picture))
                decoded += 1
                if decoded > last:
                    break
            writer.mux(clip.encode(None))
            promised = stream.frames
    except av.error.FFmpegError as error:
        raise _damaged(f"the source cannot be cut at frame {decoded} ({error.strerror})") from error
    if decoded <= last:
        if promised > last:
            raise _damaged(f"the source is damaged: {decoded} of its {promised} frames can be decoded")
        reason = f"the source has {decoded} frames, the clip is its frames {first} to {last}"
        raise DownloadFailure(Status.WRONG_LENGTH, reason)


def _damaged(reason: str) -> DownloadFailure:
    """A failure that another download may mend."""
    return DownloadFailure(Status.FAILED, reason, retry=True)


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    if not container.streams.video:
        raise _damaged(f"{path.name}: holds no video")
    return container.streams.video[0]


def _add_clip_stream(writer: av.container.OutputContainer, source: av.VideoStream) -> av.VideoStream:
    """An output stream with the source's size, rate and colours."""
    stream = writer.add_stream(ENCODER, rate=source.average_rate or source.guessed_rate, options=ENCODER_OPTIONS)
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height, stream.pix_fmt = source.width, source.height, "yuv420p"
    for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(stream.codec_context, name, getattr(source.codec_context, name))
    return stream
