# The public names of gosvae and the modules they live in, one line each: type checkers read this file, and
# `__init__.py` imports each name from here when it is used first.

# Images and codecs
from gosvae.bitstream import salvage as salvage
from gosvae.codecs.base import Concealed as Concealed
from gosvae.codecs.base import ImageCodec as ImageCodec
from gosvae.codecs.base import LossTolerantCodec as LossTolerantCodec
from gosvae.codecs.base import RateControlledCodec as RateControlledCodec
from gosvae.codecs.registry import codec_of_stream as codec_of_stream
from gosvae.codecs.registry import load_codec as load_codec
from gosvae.codecs.shortcuts import compress as compress
from gosvae.codecs.shortcuts import decompress as decompress
from gosvae.codecs.slices import StreamOptions as StreamOptions
from gosvae.codecs.video import VideoCodec as VideoCodec
from gosvae.codecs.video_registry import load_video_codec as load_video_codec
from gosvae.codecs.truncation import truncate as truncate
from gosvae.images import read_image as read_image
from gosvae.images import write_image as write_image
from gosvae.tensors import image_to_tensor as image_to_tensor
from gosvae.tensors import tensor_to_image as tensor_to_image

# Experts and data
from gosvae.datasets.base import Dataset as Dataset
from gosvae.datasets.base import Sample as Sample
from gosvae.datasets.mixture import load_prepared as load_prepared
from gosvae.experts.base import DenseBoxes as DenseBoxes
from gosvae.experts.base import Expert as Expert
from gosvae.experts.base import ExpertInfo as ExpertInfo
from gosvae.experts.base import TaskExpert as TaskExpert
from gosvae.experts.registry import load_expert as load_expert
from gosvae.experts.registry import load_task_expert as load_task_expert
from gosvae.tasks.base import Meter as Meter
from gosvae.tasks.base import Task as Task
from gosvae.tasks.registry import load_task as load_task

# Training and evaluation
from gosvae.evaluation.bd_rate import bd_rate as bd_rate
from gosvae.evaluation.clips import load_footage as load_footage
from gosvae.evaluation.plots import plot_rate_task as plot_rate_task
from gosvae.evaluation.evaluation import Evaluation as Evaluation
from gosvae.evaluation.protocol import CodecEntry as CodecEntry
from gosvae.evaluation.protocol import evaluate as evaluate
from gosvae.evaluation.results import load_evaluation as load_evaluation
from gosvae.evaluation.results import save_evaluation as save_evaluation
from gosvae.evaluation.tables import markdown_table as markdown_table
from gosvae.evaluation.tables import terminal_table as terminal_table
from gosvae.evaluation.temporal import evaluate_video as evaluate_video
from gosvae.evaluation.video_entry import VideoEntry as VideoEntry
from gosvae.quantizers.base import Quantized as Quantized
from gosvae.quantizers.base import Quantizer as Quantizer
from gosvae.recipes.run import train as train
from gosvae.seeding import torch_generator as torch_generator

# Channels and packets
from gosvae.channels.base import Channel as Channel
from gosvae.channels.base import Delivery as Delivery
from gosvae.channels.registry import load_channel as load_channel
from gosvae.packets.inlet import Inlet as Inlet
from gosvae.packets.packet import packetise as packetise
from gosvae.packets.protection import protect as protect
from gosvae.packets.reassembly import Reassembler as Reassembler
from gosvae.packets.reassembly import ReceivedFrame as ReceivedFrame
from gosvae.packets.recovery import Recovery as Recovery
from gosvae.receiver.udp import UdpReceiver as UdpReceiver
from gosvae.sender.udp import UdpSender as UdpSender

# Sender and receiver
from gosvae.sender.client import LinkClient as LinkClient
from gosvae.protocol.frames import Answer as Answer
from gosvae.protocol.frames import Dropped as Dropped
from gosvae.protocol.frames import Reason as Reason
from gosvae.receiver.engine import EngineLimits as EngineLimits
from gosvae.receiver.perception import Perception as Perception
from gosvae.receiver.receiver import Receiver as Receiver
from gosvae.receiver.receiver import ReceiverConfig as ReceiverConfig
from gosvae.protocol.security import ClientTls as ClientTls
from gosvae.protocol.security import Endpoint as Endpoint
from gosvae.protocol.security import ServerTls as ServerTls
from gosvae.receiver.limits import ServiceLimits as ServiceLimits

# Errors
from gosvae.errors import BitstreamError as BitstreamError
from gosvae.errors import CheckpointError as CheckpointError
from gosvae.errors import ConfigError as ConfigError
from gosvae.errors import DatasetError as DatasetError
from gosvae.errors import ExpertError as ExpertError
from gosvae.errors import ForeignStreamError as ForeignStreamError
from gosvae.errors import GosvaeError as GosvaeError
from gosvae.errors import ImageError as ImageError
from gosvae.errors import LinkError as LinkError
from gosvae.errors import MissingDependencyError as MissingDependencyError
from gosvae.errors import PacketError as PacketError
from gosvae.errors import RateError as RateError
from gosvae.errors import ShapeError as ShapeError
from gosvae.errors import TrainingError as TrainingError
from gosvae.errors import WriteError as WriteError

__version__: str
