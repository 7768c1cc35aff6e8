"""Download the videos of WFLW-V from YouTube and cut its clips out of them.

python utils/download_WFLW_V.py --output_folder /path/to/WFLW_V --n_processes 4
python utils/download_WFLW_V.py --output_folder /path/to/WFLW_V --split easy --limit 20
python utils/download_WFLW_V.py --output_folder /path/to/WFLW_V --ids=-3rDiJYQ6CQ,eEbMsJPwPEM --cookies cookies.txt

The output folder gets videos/<id>.mp4, one clip each, splits/{easy,hard}_video_IDs.txt and download_status.csv.
Landmarks and boxes come from elsewhere; at its end the script says from where, if they are not in the folder yet.

The same command again goes on where the last one was ended, however it was ended: a clip is written aside, and gets its
name once it has the right number of frames. Every run tries all the clips again that are not done.

    --output_folder D   where to put it all
    --n_processes N     downloads at once (default 4); threads, so that the end of the script ends all of them
    --split S           easy, hard or all (default)
    --ids ID,ID         these clips of the split only; with `=` before an id that begins with `-`
    --limit N           the first N clips of the choice only
    --index FOLDER      the index (utils/download/index.py), instead of fetching the published one
    --cookies FILE      cookies of a browser where you are signed in, in the Netscape format
    --backend B         yt-dlp (default) or pytube, which the original release used; pytube has not worked against
                        YouTube since 2023-24 (HTTP 400)
    --max_resolution P  the largest format whose smaller side is at most P pixels (default 720)
    --interval S        seconds from the start of one attempt to the next (default 12: yt-dlp's wiki gives about 300
                        videos an hour as YouTube's limit for guests)
    --retries N         further attempts after an error that may pass (default 3)
    --backoff S         seconds before the first of them, doubled for each (default 10)

The frames of the index count at most 30 per second: no clip is longer than 151. The resolution that the landmarks were
annotated at is not published; 720 was the most that YouTube offered as one file at that rate, pictures and sound, when
the data set was made. The size of each clip stands in download_status.csv.

    done            the clip has its frames
    pending         not tried yet
    unavailable     the video is gone
    private         the video is private now
    blocked         the site asks to sign in, for an age check, as a check for robots, or because of too many downloads
    geo-blocked     not offered in this country
    http error      another answer of the site; the reason has its number
    network error   the connection broke in every attempt
    wrong length    the video, or landmarks/<id>.npy, has not the frames that the index says
    wrong size      most of the landmarks in landmarks/<id>.npy lie outside the frame: not the annotated resolution
    failed          anything else; the reason says what

Exit status: 0 if all the clips asked for are done, 1 if some are not, 2 for bad input, 130 after Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # A script's own folder is what Python searches first; the imports below start from the repository's root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.command_line import integer_in, non_negative_integer, number_in, positive_integer, run

DAY = 24 * 3600

SPLITS = ("easy", "hard", "all")

BACKENDS = ("yt-dlp", "pytube")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_folder", type=Path, required=True)
    parser.add_argument("--n_processes", type=integer_in(1, 256), default=4)
    parser.add_argument("--split", choices=SPLITS, default="all")
    parser.add_argument("--ids", type=lambda text: text.split(","), metavar="ID,ID")
    parser.add_argument("--limit", type=positive_integer, metavar="N")
    parser.add_argument("--index", type=Path, metavar="FOLDER")
    parser.add_argument("--cookies", type=Path, metavar="FILE")
    parser.add_argument("--backend", choices=BACKENDS, default="yt-dlp")
    parser.add_argument("--max_resolution", type=positive_integer, default=720, metavar="PIXELS")
    parser.add_argument("--interval", type=number_in(0, DAY), default=12, metavar="SECONDS")
    parser.add_argument("--retries", type=non_negative_integer, default=3, metavar="N")
    parser.add_argument("--backoff", type=number_in(0, DAY), default=10, metavar="SECONDS")
    return parser.parse_args()


def main() -> int:
    """Download what the command line asks for; returns the exit status."""
    args = parse_arguments()
    # Loaded here, since the libraries that download are slow to load and `--help` does without them.
    from utils.download.run import DownloadOptions, download_clips

    return 0 if download_clips(DownloadOptions(**vars(args))) else 1


if __name__ == "__main__":
    sys.exit(run(main))
