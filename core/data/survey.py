"""Look at the headers of all images, and choose the pixel format that they are stored in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from core.data.decode import (
    FITS,
    REFUSE,
    ImageHeader,
    ImageSpec,
    Raw,
    UnreadableError,
    is_cut,
    read_header,
    read_value_range,
)
from core.data.listing import Listing, TargetFormat
from core.runtime.errors import UserError
from core.runtime.progress import Progress, format_count

THREADS = 4
JOB_IMAGES = 32
"""Images per thread job: with fewer small images, threads mostly wait for each other."""
_SHOWN_SIZES = 3
_DARK = 4
"""Ratio of the highest value of all images to that of usual ones from which these look dark."""
T = TypeVar("T")


@dataclass
class Group:
    """A number of images of one kind, and the id of the first."""

    count: int = 0
    first: str = ""

    def add(self, image_id: str) -> None:
        """Count one more image."""
        self.count += 1
        self.first = self.first or image_id


@dataclass
class Survey:
    """A summary of the headers of images.

    Attributes:
        sizes: By height and width, as the images are shown: with the orientation that a camera noted.
        grey, colour: Images without and with colours.
        deep: Greyscale images of more than 8 bits per pixel.
        value_range: The lowest value, or 0, and the highest value of the deep images; None without any.
        usual_highest: The median of the highest values of the deep images.
        deep_colour, animated, transparent: As in :class:`core.data.decode.ImageHeader`.
        unreadable: Why an image has no header, by its position in the listing.
    """

    sizes: dict[tuple[int, int], Group] = field(default_factory=dict)
    grey: Group = field(default_factory=Group)
    colour: Group = field(default_factory=Group)
    deep: Group = field(default_factory=Group)
    value_range: tuple[float, float] | None = None
    usual_highest: float = 0.0
    deep_colour: Group = field(default_factory=Group)
    animated: Group = field(default_factory=Group)
    transparent: Group = field(default_factory=Group)
    unreadable: dict[int, str] = field(default_factory=dict)

    def for_all(self, count: int) -> Survey:
        """Return the survey of ``count`` images that all have the common header of these."""
        survey = Survey({size: Group(count, group.first) for size, group in self.sizes.items()})
        for kind in ("grey", "colour", "deep_colour", "animated", "transparent"):
            if (group := getattr(self, kind)).count:
                setattr(survey, kind, Group(count, group.first))
        return survey

    @property
    def common_header(self) -> ImageHeader | None:
        """Return the header of all images that can be read, or None if they differ or have more than 8 bits."""
        kinds = (self.grey, self.colour, self.deep, self.deep_colour, self.animated, self.transparent)
        total = self.grey.count + self.colour.count
        if len(self.sizes) != 1 or self.deep.count or any(0 < kind.count < total for kind in kinds):
            return None
        return ImageHeader(
            *next(iter(self.sizes)),
            grey=bool(self.grey.count),
            deep_colour=bool(self.deep_colour.count),
            animated=bool(self.animated.count),
            transparent=bool(self.transparent.count),
        )


def survey_images(listing: Listing, progress: Progress | None = None, count: int | None = None) -> Survey:
    """Read the header of every image, and the pixels of those of more than 8 bits; no image raises an error.

    Args:
        count: Number of images to survey, spread evenly over the listing; None: all.
    """
    progress = progress or Progress()
    ids = listing.table["id"].tolist()
    positions = np.flatnonzero(listing.table["turn"] == 0).tolist()  # rotated copies are alike
    if count is not None:
        chosen = np.linspace(0, len(positions) - 1, min(count, len(positions))).astype(int)
        positions = [positions[at] for at in np.unique(chosen)]
    survey = Survey()
    deep = []
    progress.stage("looking at images", len(positions))
    for position, header in zip(positions, _in_threads(listing, read_header, positions, progress), strict=True):
        if isinstance(header, str):
            survey.unreadable[position] = header
            continue
        survey.sizes.setdefault((header.height, header.width), Group()).add(ids[position])
        (survey.grey if header.grey else survey.colour).add(ids[position])
        for kind in ("deep", "deep_colour", "animated", "transparent"):
            if getattr(header, kind):
                getattr(survey, kind).add(ids[position])
        if header.deep:
            deep.append(position)
    if deep:
        progress.stage("measuring brightness", len(deep))
        survey.value_range, survey.usual_highest = _value_range(listing, deep, progress)
    return survey


def _in_threads(
    listing: Listing, read: Callable[[Raw], T], positions: list[int], progress: Progress
) -> Iterator[T | str]:
    """Yield, for every image, what ``read`` returns for its bytes, or why it cannot be read."""

    def one(position: int) -> T | str:
        try:
            return read(listing.read(position))
        except UnreadableError as error:
            return str(error)

    def job(positions: list[int]) -> list[T | str]:
        return [one(position) for position in positions]

    jobs = [positions[start : start + JOB_IMAGES] for start in range(0, len(positions), JOB_IMAGES)]
    with ThreadPoolExecutor(THREADS) as pool:
        for done in pool.map(job, jobs):
            progress.advance(len(done))
            yield from done


def _value_range(listing: Listing, positions: list[int], progress: Progress) -> tuple[tuple[float, float], float]:
    """Return the lowest value, or 0, and the highest of all images, and the median of the highest of each."""
    ranges = [one for one in _in_threads(listing, read_value_range, positions, progress) if not isinstance(one, str)]
    low = min((one[0] for one in ranges), default=0.0)
    high = max((one[1] for one in ranges), default=1.0)
    usual = float(np.median([one[1] for one in ranges])) if ranges else high
    return (min(0.0, low), high if high > low else low + 1.0), usual


def resolve_format(listing: Listing, requested: TargetFormat, survey: Survey) -> tuple[ImageSpec, list[str]]:
    """Return the pixel format for the images, inferring what neither the user nor the format specifies, and notes.

    Raises:
        UserError: no image can be read; or images differ in size or in shape, and nothing says what to do about it.
    """
    default = listing.form
    if not survey.sizes:
        position, reason = next(iter(survey.unreadable.items()))
        first = f"{listing.table['id'].iloc[position]}: {reason}"
        raise UserError(f"{listing.name}: none of the images can be read ({first}).", "Check the files.")
    size, channels = requested.size or default.size, requested.channels or default.channels
    if not size and len(survey.sizes) > 1:
        raise UserError(
            f"{listing.name}: images differ in size: {_sizes_text(survey.sizes)}.",
            "Choose one size, and what happens to images of another shape: for example --size 84 --fit crop, "
            "--fit pad or --fit resize.",
        )
    size = size or next(iter(survey.sizes))
    fit = requested.fit or default.fit or REFUSE
    notes = [*_fit_notes(listing, survey, size, fit), *_colour_notes(survey, channels)]
    channels = channels or (3 if survey.colour.count else 1)
    value_range = survey.value_range
    if value_range:
        count, low, high = format_count(survey.deep.count, "image"), *value_range
        notes.append(
            f"{count} in greyscale of more than 8 bits per pixel, the first {survey.deep.first!r}: their common range, "
            f"{low:g} to {high:g}, is mapped to 0 to 255."
        )
        if survey.usual_highest - low < (high - low) / _DARK:
            notes.append(
                f"At least half of them stay below {survey.usual_highest:g} and will look dark; a single bright pixel "
                "in another image may set the range."
            )
    if (listing.table["turn"] != 0).any() and size[0] != size[1]:
        what = f"{listing.name}: rotated classes need square images, but these have {size[1]} x {size[0]}."
        raise UserError(what, "Choose a size such as --size 84, and --fit crop, pad or resize.")
    notes += _kind_notes(survey)
    return ImageSpec(*size, channels, requested.invert or default.invert, fit, value_range), notes


def _sizes_text(sizes: dict[tuple[int, int], Group]) -> str:
    """Return the most frequent sizes with an example of each."""
    common = sorted(sizes.items(), key=lambda item: -item[1].count)
    parts = [
        f"{group.first} has {width} x {height}" + (f", as {group.count - 1:,} more" if group.count > 1 else "")
        for (height, width), group in common[:_SHOWN_SIZES]
    ]
    more = len(sizes) - _SHOWN_SIZES
    return "; ".join(parts) + (f"; and {format_count(more, 'more size')}" if more > 0 else "")


def _fit_notes(listing: Listing, survey: Survey, size: tuple[int, int], fit: str) -> list[str]:
    """Return notes on images of another shape; raise UserError if these are to be refused."""
    cut = {shape: group for shape, group in survey.sizes.items() if is_cut(*shape, *size)}
    scaled = {shape: group for shape, group in survey.sizes.items() if shape != size and shape not in cut}
    notes = []
    if scaled:
        number = format_count(sum(group.count for group in scaled.values()), "image")
        notes.append(f"{number} scaled to {size[1]} x {size[0]}: {_sizes_text(scaled)}.")
    if not cut:
        return notes
    count = format_count(sum(group.count for group in cut.values()), "image")
    shape = f"{size[1]} x {size[0]}"
    if fit == REFUSE:
        choices = ", ".join(f"--fit {name} ({words})" for name, words in FITS.items() if name != REFUSE)
        raise UserError(
            f"{listing.name}: {count} of {len(listing):,} have another shape than {shape}: {_sizes_text(cut)}.",
            f"Choose how to fit them: {choices}.",
        )
    return [*notes, f"{count} of another shape than {shape}: {FITS[fit]} (--fit {fit}); {_sizes_text(cut)}."]


def _kind_notes(survey: Survey) -> list[str]:
    """Return notes on images of which only a part is stored."""
    return [
        f"{format_count(group.count, 'image')} {what}, the first {group.first!r}: {effect}."
        for group, what, effect in (
            (survey.deep_colour, "in colour of 16 bits per channel", "the upper 8 bits are used"),
            (survey.animated, "with several frames or pages", "only the first is used"),
            (survey.transparent, "with transparency", "shown on white"),
        )
        if group.count
    ]


def _colour_notes(survey: Survey, channels: int | None) -> list[str]:
    """Return a note if images lose their colours, or only some of them have any."""
    if not survey.colour.count or (channels != 1 and not survey.grey.count):
        return []
    colour = f"{format_count(survey.colour.count, 'image')} in colour, the first {survey.colour.first!r}"
    if channels == 1:
        return [f"{colour}: converted to greyscale."]
    return [
        f"{colour}, and {survey.grey.count:,} in greyscale: all are stored in colour; --channels 1 converts to grey."
    ]
