"""Download the videos of WFLW-V from YouTube and cut its clips out of them.

python utils/download_WFLW_V.py --output_folder /path/to/WFLW_V --n_processes 4
python utils/download_WFLW_V.py --output_folder /path/to/WFLW_V --split easy --limit 20
python utils/download_WFLW_V.py --output_folder /path/to/WFLW_V --ids=-3rDiJYQ6CQ,eEbMsJPwPEM --cookies cookies.txt

The output folder gets videos/<id>.mp4, one clip each, splits/{easy,hard}_video_IDs.txt and download_status.csv.
Landmarks and boxes are separate downloads; if they are missing, the script says at its end where to get them.

An interrupted download resumes with the same command. A clip is written under a temporary name and renamed once it has
the right number of frames. Every run tries again all the clips that are not done.

    --output_folder D   folder for the results
    --n_processes N     downloads at once (default 4); they are threads, so all of them end with the script
    --split S           easy, hard or all (default)
    --ids ID,ID         only these clips of the split; write --ids=ID if an id begins with `-`
    --limit N           only the first N of the chosen clips
    --index FOLDER      folder with the index (utils/download/index.py); default: fetch the published one
    --cookies FILE      cookies of a browser where you are signed in, in the Netscape format
    --backend B         yt-dlp (default) or pytube, which the original release used; pytube has not worked against
                        YouTube since 2023-24 (HTTP 400)
    --max_resolution P  the largest format whose smaller side is at most P pixels (default 720)
    --interval S        seconds from the start of one attempt to the next (default 12: yt-dlp's wiki names about 300
                        videos an hour as YouTube's limit for guests)
    --retries N         further attempts after a temporary error (default 3)
    --backoff S         seconds before the first further attempt, doubled for each later one (default 10)

The index counts frames at 30 per second or fewer: no clip is longer than 151 frames. The resolution of the annotated
videos is not published. 720 was the largest that YouTube offered as one file with sound at that rate when the data set
was made. download_status.csv has the size of each clip.

    done            the clip has its frames
    pending         not tried yet
    unavailable     the video is gone
    private         the video is private now
    blocked         the site asks to sign in: an age check, a robot check, or too many downloads
    geo-blocked     not available in this country
    http error      another HTTP error; the reason has its number
    network error   the connection broke in every attempt
    wrong length    the number of frames of the video or of landmarks/<id>.npy differs from the index
    wrong size      most of the landmarks in landmarks/<id>.npy lie outside the frame: another resolution was annotated
    failed          any other error; the reason names it

Exit status: 0 if all the clips asked for are done, 1 if some are not, 2 for bad input, 130 after Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # Python searches the script's own folder first; the imports below start at the root of the repository.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.command_line import (
    given_path,
    integer_in,
    non_negative_integer,
    number_in,
    positive_integer,
    run,
    script_parser,
)

DAY = 24 * 3600

SPLITS = ("easy", "hard", "all")

BACKENDS = ("yt-dlp", "pytube")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--output_folder", type=given_path, required=True)
    parser.add_argument("--n_processes", type=integer_in(1, 256), default=4)
    parser.add_argument("--split", choices=SPLITS, default="all")
    parser.add_argument("--ids", type=lambda text: text.split(","), metavar="ID,ID")
    parser.add_argument("--limit", type=positive_integer, metavar="N")
    parser.add_argument("--index", type=given_path, metavar="FOLDER")
    parser.add_argument("--cookies", type=given_path, metavar="FILE")
    parser.add_argument("--backend", choices=BACKENDS, default="yt-dlp")
    parser.add_argument("--max_resolution", type=positive_integer, default=720, metavar="PIXELS")
    parser.add_argument("--interval", type=number_in(0, DAY), default=12, metavar="SECONDS")
    parser.add_argument("--retries", type=non_negative_integer, default=3, metavar="N")
    parser.add_argument("--backoff", type=number_in(0, DAY), default=10, metavar="SECONDS")
    return parser.parse_args()


def main() -> int:
    """Download what the command line asks for; returns the exit status."""
    args = parse_arguments()
    # Imported here: the download libraries are slow to load, and `--help` does not need them.
    from utils.download.run import DownloadOptions, download_clips

    return 0 if download_clips(DownloadOptions(**vars(args))) else 1


if __name__ == "__main__":
    sys.exit(run(main))
